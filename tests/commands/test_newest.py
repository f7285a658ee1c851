"""What a command takes where no store and no run is named, and what may be named without an option."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import passed, refused

from densecli.commands.options import Options
from densecli.commands.run_data import on_the_runs_data
from densecli.commands.train import changes
from densecli.models.weights import find_weights
from densecli.scenes.coco import write_coco
from densecli.shards.store import Store


def make_run(folder: Path, dataset: str = "scenes", canvas: int = 96) -> Path:
    """A run whose export is its initial student, on a store without photos."""
    store = Store.create(
        str(folder.parent / f"store-{folder.name}"),
        {"name": dataset, "split": "train", "n": 1, "seed": 0},
        canvas,
        [1],
    )
    export = folder / "export"
    export.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"store": store.root}))
    shutil.copy(find_weights("scenes-s"), export / "student.safetensors")
    card = {"student": "scenes-s", "canvas": 96, "image_size": 96, "mode": "value", "random_weights": False}
    card["initial_weights"] = {"source": find_weights("scenes-s"), "sha256": "0", "random": False}
    (export / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs/old and runs/some/new, which is newer."""
    monkeypatch.chdir(tmp_path)
    for age, name in ((100, "old"), (0, "some/new")):
        (tmp_path / "runs" / name).parent.mkdir(exist_ok=True, parents=True)
        card = make_run(tmp_path / "runs" / name) / "export" / "card.json"
        os.utime(card, (1_700_000_000 - age,) * 2)
    return tmp_path / "runs"


@pytest.mark.parametrize("command", ["evaluate", "export", "diagnose", "predict"])
def test_newest__a_run_is_taken_and_named_in_the_same_way_everywhere(
    runs: Path, photos: Path, command: str
) -> None:
    write_coco(runs.parent / "world", split="test", count=2)
    words = {
        "evaluate": (
            "--data",
            "world",
            "--split",
            "test",
            "--categories",
            "scenes",
            "--limit",
            1,
        ),
        "export": ("--layout", "open_clip", "--dry-run"),
        "diagnose": ("--data", photos / "0.jpg", "--categories", "scenes", "--measured-photos", 1),
        "predict": (photos / "0.jpg", "--names", "sky, grass"),
    }
    assert "The newest run is taken, runs/some/new." in passed(command, *words[command])


@pytest.mark.parametrize(
    ("command", "others"),
    [(("evaluate",), "--student"), (("export", "--layout", "timm"), "--checkpoint"),
     (("diagnose", "--data", "x.jpg"), "--student"), (("predict", "x.jpg"), "--student")],
)  # fmt: skip
def test_newest__without_any_run_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], others: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(*command)
    assert "There is no finished run in runs/." in said and f"--run or {others}" in said


def test_by_position__a_run_and_a_store_need_no_option(runs: Path) -> None:
    assert f"{runs / 'old'}/export/" in passed("export", runs / "old", "--layout", "timm", "--dry-run")
    assert "scenes train" in passed("info", runs / "store-old")
    said = refused("info", runs / "store-old", "--store", "other", code=2)
    assert "--store is given twice" in said


def test_by_position__the_command_line_wins_over_a_configuration_file(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('store = "nowhere"')
    assert "scenes train" in passed("info", runs / "store-old", "--config", tmp_path / "c.toml")


def test_missing_dataset__lists_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSECLI_DATA", str(tmp_path))
    (tmp_path / "coco").mkdir()
    said = refused("build-shards", code=2)
    assert "Missing option '--dataset'" in said and "scenes" in said
    assert f"found in {tmp_path / 'coco'}" in said


def test_run_data__a_run_on_coco_is_measured_on_its_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSECLI_DATA", str(tmp_path / "data"))
    run = make_run(tmp_path / "run", "coco", 512)
    found = on_the_runs_data(Options(given={}), str(run)).given
    assert found["data"] == str(tmp_path / "data" / "coco")
    assert (found["split"], found["categories"]) == ("val2017", "133")
    mine = Options(given={"data": "mine"})
    assert on_the_runs_data(mine, str(run)).given == {"data": "mine", "categories": "133"}
    bare = make_run(tmp_path / "bare", "folder", 512)
    assert on_the_runs_data(mine, str(bare)) is mine
    named = Options(given={"data": "mine", "categories": "ade150"})
    assert on_the_runs_data(named, str(run)) is named


def test_changes__what_a_training_has_changed_in_sentences() -> None:
    result = {"moved": 0.0123, "warnings": ["The loss is flat."]}
    assert changes(result, [4.0, 2.0, None, *[3.0] * 16, 1.0, 0.5]) == [
        "Loss: 3.0000 in the first 2 steps, 0.7500 in the last.",
        "The trained weights moved by 1.23% of their norm.",
        "Warning: The loss is flat.",
    ]
    assert changes({"warnings": []}, [1.0]) == []
