"""densecli evaluate, from the command line."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import passed, refused

from densecli.models.weights import find_weights
from densecli.scenes.coco import write_coco
from densecli.shards.store import Store


def test_evaluate__unfinished_run(tmp_path: Path) -> None:
    assert "densecli train" in refused("evaluate", "--data", tmp_path, "--run", tmp_path)


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Annotated scenes where a run on scenes looks for them."""
    monkeypatch.setenv("DENSECLI_DATA", str(tmp_path / "data"))
    write_coco(tmp_path / "data" / "scenes", split="test", count=3)
    return tmp_path / "data" / "scenes"


def test_evaluate__says_what_its_numbers_were_measured_on(scenes: Path, tmp_path: Path) -> None:
    where = ["--data", scenes, "--split", "test", "--categories", "scenes"]
    words = ["evaluate", "--student", "scenes-s", *where, "--json", tmp_path / "r.json"]
    said = passed(*words)
    assert f"scenes-s: measured on 3 photos of {scenes}, test; categories scenes (20)" in said
    assert "crowds: 0 among the segments; prompts plain; canvas 96 px; mode value; weights" in said
    measured = json.loads((tmp_path / "r.json").read_text())["scenes-s"]["measured"]
    weights = measured.pop("weights")
    assert weights.endswith("scenes-s.safetensors")
    assert measured == {
        "data": f"{scenes}, test",
        "photos": 3,
        "categories": "scenes (20)",
        "crowds": "0 among the segments",
        "prompts": "plain",
        "canvas": 96,
        "mode": "value",
    }
    assert "canvas 128 px" in passed(*words, "--canvas", 128)
    for task in ("segmentation", "zeroshot"):
        passed(*words, "--task", task)
        found = json.loads((tmp_path / "r.json").read_text())["scenes-s"]["measured"]
        assert (found["prompts"], found["photos"], found["weights"]) == ("plain", 3, weights)


def test_evaluate__says_which_beta_suits_a_pvlm(tmp_path: Path) -> None:
    write_coco(tmp_path, split="test", count=120)
    words = ["evaluate", "--data", tmp_path, "--split", "test", "--categories", "scenes"]
    biased, unbiased = (passed(*words, "--student", name) for name in ("scenes-pvlm", "scenes-pvlm-unbiased"))
    assert "below Boxes; to train by its labels, use --beta 0 and start" in biased
    assert "use --beta 0.3 to 1" in unbiased and "--beta 0 " not in unbiased
    for others in (
        ("--student", "scenes-pvlm", "--weights", "random:0"),
        ("--student", "scenes-s-clipself"),
        ("--student", "scenes-pvlm", "--limit", 50),  # too few regions to say so
    ):
        assert "As a P-VLM" not in passed(*words, *others)


def test_evaluate__a_run_and_its_student_before_are_measured_alike(scenes: Path, tmp_path: Path) -> None:
    """On the run's own data set and categories, which nobody named."""
    store = Store.create(
        str(tmp_path / "s"), {"name": "scenes", "split": "train", "n": 1, "seed": 0}, 96, [1]
    )
    run, export = tmp_path / "run", tmp_path / "run" / "export"
    export.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"store": store.root}))
    weights = find_weights("scenes-s")
    shutil.copy(weights, export / "student.safetensors")
    card = {"student": "scenes-s", "canvas": 96, "image_size": 96, "mode": "value", "random_weights": False}
    card["initial_weights"] = {"source": str(weights), "sha256": "0", "random": False}
    (export / "card.json").write_text(json.dumps(card))
    file = tmp_path / "r.json"
    passed("evaluate", "--run", run, "--limit", 3, "--json", file)
    (after,) = json.loads(file.read_text()).values()
    passed("evaluate", "--student", "scenes-s", "--data", scenes, "--split", "test", "--categories", "scenes",
           "--json", file)  # fmt: skip
    (before,) = json.loads(file.read_text()).values()
    for result in (before, after):
        del result["weights"], result["measured"]["weights"]
    assert before == after


def test_evaluate__hints_name_flags(tmp_path: Path) -> None:
    said = refused("evaluate", "--student", "scenes-s", "--data", tmp_path)
    assert "--data" in said.partition("Hint:")[2] and "--split" in said.partition("Hint:")[2]


def test_evaluate__prompts_by_name_and_by_file(scenes: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("a photo of a {}\n")
    words = [
        "evaluate",
        "--student",
        "scenes-s",
        "--data",
        scenes,
        "--split",
        "test",
        "--categories",
        "scenes",
    ]
    plain, same = (passed(*words, "--templates", each) for each in ("plain", mine))
    assert "prompts plain" in plain and f"prompts {mine}" in same
    assert plain.splitlines()[2] == same.splitlines()[2]
    assert "no prompt templates called 'vild'" in refused(*words, "--templates", "vild")
