"""densecli diagnose, from the command line."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import passed, refused

from densecli.models.weights import find_weights
from densecli.scenes.coco import write_coco
from densecli.shards.store import Store

SCENES = ("--categories", "scenes", "--device", "cpu")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose export is its initial student."""
    weights, export = find_weights("scenes-s"), tmp_path / "run" / "export"
    export.mkdir(parents=True)
    shutil.copy(weights, export / "student.safetensors")
    card = {"student": "scenes-s", "canvas": 96, "image_size": 96, "mode": "value", "random_weights": False}
    card["initial_weights"] = {"source": str(weights), "sha256": "0"}
    (export / "card.json").write_text(json.dumps(card))
    return tmp_path / "run"


def store_of_scenes(folder: Path) -> Store:
    """A store of a scene, without columns."""
    return Store.create(str(folder / "s"), {"name": "scenes", "split": "train", "n": 1, "seed": 0}, 96, [1])


def test_diagnose__a_run_on_a_folder_of_photos(run: Path, photos: Path, tmp_path: Path) -> None:
    """It compares them with the names of the run's own store, which nobody gave."""
    file = tmp_path / "d.json"
    (run / "config.json").write_text(json.dumps({"store": store_of_scenes(tmp_path).root}))
    said = passed("diagnose", "--run", run, "--data", photos, "--limit", 1, "--json", file)
    found = json.loads(file.read_text())
    assert found["page"] == str(run / "diagnosis" / "index.html") and Path(found["page"]).is_file()
    assert found["photos"] == ["0.jpg"] and found["measured_photos"] == 3
    assert (found["canvas"], found["mode"], found["categories"]) == (96, "value", "scenes")
    before, after = found["models"]["before"], found["models"]["after"]
    assert before.pop("weights") != after.pop("weights") and before == after
    assert "broken.jpg" in said and any("broken.jpg" in note for note in found["notes"])


def test_diagnose__a_model_on_a_single_photo(photos: Path, tmp_path: Path) -> None:
    words = ["diagnose", "--student", "scenes-s", "--data", photos / "1.jpg", *SCENES, "--out", tmp_path]
    assert str(tmp_path / "index.html") in passed(*words)
    assert (tmp_path / "index.html").read_text().count("<h2>1.jpg</h2>") == 1


def test_diagnose__a_run_on_a_generated_data_set_needs_no_data(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSECLI_DATA", str(tmp_path / "data"))
    write_coco(tmp_path / "data" / "scenes", split="test", count=2)
    (run / "config.json").write_text(json.dumps({"store": store_of_scenes(tmp_path).root}))
    file = tmp_path / "d.json"
    few = ("--limit", 1, "--measured-photos", 2)
    passed("diagnose", "--run", run, *few, "--out", tmp_path / "out", "--json", file)
    found = json.loads(file.read_text())
    assert (found["categories"], found["photos"], found["measured_photos"]) == ("scenes", ["000000"], 2)
    assert found["models"]["after"]["regions"]["things"] > 0
    assert "<h2>Confusion</h2>" in (tmp_path / "out" / "index.html").read_text()


def test_diagnose__refusals_say_what_to_give(run: Path, photos: Path, monkeypatch, tmp_path) -> None:
    # Where no earlier run is found.
    monkeypatch.chdir(tmp_path)
    assert "--run or --student" in refused("diagnose", "--data", photos)
    assert "--run or --student" in refused("diagnose", "--run", run, "--student", "scenes-s", code=2)
    assert "--data" in refused("diagnose", "--student", "scenes-s", code=2)
    assert "--data" in refused("diagnose", "--student", "scenes-s", "--data", photos / "9.jpg", *SCENES)
    assert "broken.jpg" in refused("diagnose", "--run", run, "--data", photos / "broken.jpg", *SCENES)
    assert "--split" in refused("diagnose", "--run", run, "--data", photos, "--split", "val", *SCENES)
