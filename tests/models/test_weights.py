"""Weights by name: from a folder, shipped with the model, or published and fetched from the hub."""

from pathlib import Path

import open_clip
import pytest
from hub_server import COMMIT, Hub
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.models.registry import MODELS
from densecli.models.student import load_student
from densecli.models.vfm import build_vfm
from densecli.models.vfms import VFMS, find_vfm
from densecli.models.weights import (
    find_weights,
    given_for,
    located,
    published_of,
    weights_file,
    weights_sha256,
)

CLIPS = [name for name, arch in MODELS.items() if arch.published and name not in arch.aliases]
OF_TIMM = [name for name, arch in VFMS.items() if arch.published]


@pytest.mark.parametrize("name", CLIPS)
def test_published__every_tag_is_in_open_clips_table(name: str, hub_server: Hub) -> None:
    arch = MODELS[name]
    if not arch.published.address.startswith("open_clip:"):
        assert arch.published.address.startswith("hf-hub:QuanSun/EVA-CLIP/EVA02_CLIP_")
        return
    found = open_clip.get_pretrained_cfg(arch.config, arch.published.address.removeprefix("open_clip:"))
    repo = found["hf_hub"].rstrip("/")
    hub_server.repos[repo] = {"open_clip_model.safetensors": b"clip", "model.safetensors": b"its tower"}
    assert located(name, arch.published.address) == f"hf-hub:{repo}/open_clip_model.safetensors@{COMMIT}"


@pytest.mark.parametrize("name", OF_TIMM)
def test_published__every_repository_is_the_one_that_timm_names(name: str) -> None:
    published = VFMS[name].published
    repo = published.address.removeprefix("hf-hub:").removesuffix("/model.safetensors")
    about = get_pretrained_cfg(repo.removeprefix("timm/"))
    assert about.hf_hub_id == repo and about.license == published.licence


def test_published__a_model_of_timm_has_the_repository_of_its_weights() -> None:
    assert published_of("timm/vit_tiny_patch16_224").address.startswith("hf-hub:timm/vit_tiny_patch16_224.")


def test_find_weights__fetches_those_that_are_published(hub_server: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path / "none"))
    model = build_vfm(find_vfm("dinov2-vits14"))
    file = tmp_path / "model.safetensors"
    save_file(model.net.state_dict(), file)
    hub_server.repos["timm/vit_small_patch14_dinov2.lvd142m"] = {"model.safetensors": file.read_bytes()}
    loaded, info = load_student("dinov2-vits14")
    assert info.source == f"hf-hub:timm/vit_small_patch14_dinov2.lvd142m/model.safetensors@{COMMIT}"
    assert info.sha256 == weights_sha256(file) and not info.random
    expected = model.net.state_dict()
    assert all(expected[key].equal(value) for key, value in loaded.vfm.net.state_dict().items())


def test_find_weights__a_file_in_the_folder_comes_first(hub_server: Hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    (tmp_path / "eva02-b16.pt").touch()
    assert find_weights("vitb16") == str(tmp_path / "eva02-b16.pt")
    assert hub_server.asked == []


@pytest.mark.usefixtures("hub_server")
def test_find_weights__that_cannot_be_fetched_says_both_places(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    with pytest.raises(DenseCLIError, match=r"no vitb16.safetensors or .* has no repository") as caught:
        find_weights("vitb16")
    assert caught.value.hint


def test_find_weights__of_a_model_with_several_tags_lists_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    with pytest.raises(DenseCLIError, match="no weights for open_clip/ViT-B-32") as caught:
        find_weights("open_clip/ViT-B-32")
    assert "open_clip/ViT-B-32=open_clip:TAG with openai, laion400m_e31" in caught.value.hint


def test_located__an_unknown_tag_suggests_the_nearest() -> None:
    with pytest.raises(DenseCLIError, match="no tag of EVA02-B-16 in open_clip called 'merged2b'") as caught:
        located("vitb16", "open_clip:merged2b")
    assert "merged2b_s8b_b131k" in caught.value.hint


def test_located__a_tag_is_for_models_of_open_clip() -> None:
    with pytest.raises(DenseCLIError, match="dinov2-vits14 is no model of open_clip"):
        located("dinov2-vits14", "open_clip:openai")


def test_load_model__a_file_and_the_same_file_on_the_hub_are_the_same(hub_server: Hub) -> None:
    file = find_weights("scenes-s")
    hub_server.repos["org/student"] = {"student.safetensors": Path(file).read_bytes()}
    model, here = load_model("scenes-s", file)
    fetched, there = load_model("scenes-s", "hf-hub:org/student")
    assert there.source == f"hf-hub:org/student/student.safetensors@{COMMIT}"
    assert here.sha256 == there.sha256
    state = model.clip.state_dict()
    assert all(state[key].equal(value) for key, value in fetched.clip.state_dict().items())


def test_load_model__a_pickle_on_the_hub_runs_no_code(hub_server: Hub, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = b"\x80\x02cposix\nsystem\nX" + len(f"touch {ran}").to_bytes(4, "little") + f"touch {ran}".encode()
    hub_server.repos["org/evil"] = {"model.bin": code + b"\x85R."}
    with pytest.raises(DenseCLIError, match="cannot be read as plain weights"):
        load_model("scenes-s", "hf-hub:org/evil")
    assert not ran.exists()


def test_weights_file__of_a_path_is_the_path() -> None:
    assert weights_file("some/where.pt") == Path("some/where.pt")


def test_given_for__any_name_of_a_model_serves_it() -> None:
    assert given_for("vitb16", {"eva02-b16": "a"}) == given_for("eva02-b16", {"vitb16": "a"}) == "a"
    assert given_for("refiner-vitb16", {"refiner-eva02-b16": "r", "vitb16": "a"}) == "r"
    assert given_for("vitl14", {"vitb16": "a"}) is None
    with pytest.raises(DenseCLIError, match="vitb16 and eva02-b16 are the same model"):
        given_for("vitb16", {"vitb16": "a", "eva02-b16": "b"})
