"""Regions of annotated photos, measured while a student is trained."""

import json
from pathlib import Path

import pytest
from command_line import refused, run
from training import rows

from densecli.scenes.coco import write_coco

PHOTOS = 3


@pytest.fixture(scope="module")
def annotated(tmp_path_factory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_coco(data, split="test", count=PHOTOS + 1)
    return data


@pytest.fixture(scope="module")
def words(tiny_store) -> list[object]:
    return [
        "train", "--store", tiny_store.store.root, "--student", "scenes-s", "--weights", "scenes-s=random:0",
        "--batch-size", 4, "--lr", 1e-3, "--device", "cpu", "--max-steps", 2,
    ]  # fmt: skip


def test_region_measure__is_what_evaluate_gives_for_the_export(words, annotated, tmp_path) -> None:
    where = ["--evaluate-data", annotated, "--evaluate-split", "test", "--evaluate-categories", "scenes"]
    done = run(
        *words, "--run", tmp_path / "run", *where, "--evaluate-limit", PHOTOS, "--evaluate-every", 1,
        "--holdout", 0.3, "--keep-best", "Masks-T", "--json", "-",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert "After step 1: Boxes " in done.stderr and "The best evaluate/Masks-T: " in done.stderr
    assert f"Regions of {PHOTOS} photos of {annotated}, test" in done.stderr

    logged = {row["step"]: row for row in rows(tmp_path / "run")}
    assert all({"evaluate/Boxes", "holdout/loss"} <= row.keys() for row in logged.values())
    asked = ["--data", annotated, "--split", "test", "--categories", "scenes", "--limit", PHOTOS]
    best = result["best"]["step"]
    for folder, step in (("export", 2), ("export-best", best)):
        measured = tmp_path / f"{folder}.json"
        again = run("evaluate", tmp_path / "run" / folder, *asked, "--device", "cpu", "--json", measured)
        assert again.exit_code == 0, again.output
        [found] = json.loads(measured.read_text()).values()
        for name, field in (
            ("Boxes", "boxes_top1"),
            ("Masks-T", "masks_thing_top1"),
            ("Masks-S", "masks_stuff_top1"),
            ("stuff-as-thing", "stuff_as_thing"),
        ):
            assert logged[step].get(f"evaluate/{name}") == found[field], name
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (recorded["evaluate_data"], recorded["evaluate_split"]) == (str(annotated), "test")


def test_region_measure__what_is_missing_is_told_before_anything_is_written(words, tmp_path) -> None:
    folder = ["--run", tmp_path / "run"]
    message = refused(*words, *folder, "--evaluate-every", 1)
    assert "has no annotated ones" in message and "--holdout 0.01" in message
    message = refused(*words, *folder, "--evaluate-data", tmp_path)
    assert "no panoptic annotations for split 'val2017'" in message and "--evaluate-split" in message
    assert "--evaluate-data" in refused(*words, *folder, "--evaluate-split", "test", code=2)
    assert not (tmp_path / "run").exists()
