"""The two commands of the first page as they are written there, with nothing but photos in data/sa1b.

The weights come from a hub on loopback, under the names that are published. The networks under the models'
names are small ones of the same family, and the photos are fabricated in SA-1B's layout. Without Ray.
"""

import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from building import without_ray
from command_line import passed, refused
from hub_server import COMMIT, Hub
from small_models import small_models
from tars import jpg, write_tar

from densecli.models.checkpoints import load_model
from densecli.shards.store import Store

ROOT = Path(__file__).parents[1]
FILES = {"eva02-l14-336": "EVA02_CLIP_L_336_psz14_s6B.pt", "eva02-b16": "EVA02_CLIP_B_psz16_s8B.pt"}


def first_commands(page: str) -> list[list[str]]:
    """The commands of the first block of a page, as words."""
    block = (ROOT / page).read_text().split("```")[1]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines() if line]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, without weights."""
    monkeypatch.chdir(tmp_path)
    for name in ("DENSECLI_DATA", "DENSECLI_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    with without_ray():
        yield tmp_path


def test_first_commands__are_the_same_on_both_pages() -> None:
    build, train = first_commands("README.md")
    assert build == ["build-shards", "--teacher", "vitl14", "--dataset", "sa1b"] and train == ["train"]
    assert first_commands("docs/index.md") == [build, train]


def test_first_commands__without_data_say_where_it_is_looked_for(here: Path) -> None:
    build, train = first_commands("README.md")
    assert "data/sa1b" in refused(*build, "--weights", "vitl14=random:0")
    assert "densecli build-shards" in refused(*train)


def test_first_commands__without_weights_say_where_they_are_looked_for(here: Path) -> None:
    said = refused(*first_commands("README.md")[0])
    assert "There are no weights for vitl14" in said and "EVA02_CLIP_L_336_psz14_s6B.pt" in said


@pytest.mark.slow
def test_first_commands__as_they_are_written(
    here: Path, hub_server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_models(monkeypatch)
    files = {}
    for seed, (name, file) in enumerate(FILES.items()):
        weights = io.BytesIO()
        torch.save(load_model(name, f"random:{seed}")[0].clip.state_dict(), weights)
        files[file] = weights.getvalue()
    hub_server.repos["QuanSun/EVA-CLIP"] = files
    photos = {f"sa_{number}.jpg": jpg(seed=number) for number in range(1, 4)}
    write_tar(here / "data" / "sa1b" / "sa_000000.tar", photos)

    build, train = first_commands("README.md")
    assert "stores/sa1b-512: built, 3 photos" in passed(*build)
    (column,) = Store.open("stores/sa1b-512").columns("targets")
    assert column.info["weights"] == f"hf-hub:QuanSun/EVA-CLIP/EVA02_CLIP_L_336_psz14_s6B.pt@{COMMIT}"
    said = passed(*train)
    assert "stores/sa1b-512" in said and "export/student.safetensors" in said
    config = json.loads(Path("runs/densevlm-eva02-b16-sa1b-512/config.json").read_text())
    assert config["student"] == "eva02-b16" and config["total_steps"] == 6
