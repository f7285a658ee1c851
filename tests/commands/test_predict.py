"""densecli predict, from the command line: real scenes, hostile files, and every way to name a model."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import passed, refused
from PIL import Image

from densecli.models.weights import find_weights
from densecli.scenes.world import render
from densecli.shards.store import Store

NAMES = "sky, water, grass, road, bus, sheep"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose export is its initial student."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    (folder / "export").mkdir(parents=True)
    shutil.copy(find_weights("scenes-s"), folder / "export" / "student.safetensors")
    card = {"student": "scenes-s", "canvas": 96, "image_size": 96, "mode": "value", "random_weights": False}
    card["initial_weights"] = {"source": "scenes-s", "sha256": "0"}
    (folder / "export" / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "sub/a.png")):
        Image.fromarray(render(0, "test", i).image).save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    return folder


def test_predict__a_folder_with_a_run(run: Path, scenes: Path) -> None:
    said = passed("predict", scenes, "--run", run, "--names", NAMES, "--heat", "sky")
    out = run / "predictions"
    found = json.loads((out / "predictions.json").read_text())
    assert "1 not named as a photo (notes.txt)" in said and str(out) in said
    assert [Path(each["photo"]).relative_to(scenes).as_posix() for each in found["photos"]] == [
        "a.png",
        "b.png",
        "sub/a.png",
    ]
    assert (found["canvas"], found["mode"], found["random_weights"]) == (96, "value", False)
    for each in found["photos"]:
        assert list(each["pictures"]) == ["segmentation", "boxes", "heat-sky", "labels"]
        assert sum(each["shares"].values()) == pytest.approx(1)
        labels = np.asarray(Image.open(each["pictures"]["labels"]))
        assert labels.shape == (96, 96) and labels.min() >= 1 and labels.max() <= 6
        name = found["names"][np.bincount(labels.ravel()).argmax() - 1]
        assert name == next(iter(each["shares"]))
    # Two photos have one name: none of their pictures is lost.
    assert len({file for each in found["photos"] for file in each["pictures"].values()}) == 12


def test_predict__the_same_from_an_export_folder_a_file_and_a_clip(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    photo, predicted = scenes / "a.png", []
    weights = run / "export" / "student.safetensors"
    ways = (
        ("--run", run),
        ("--run", run / "export"),
        ("--run", weights),
        ("--student", "scenes-s", "--weights", f"scenes-s={weights}", "--canvas", 96),
    )
    for i, way in enumerate(ways):
        passed("predict", photo, *way, "--names", NAMES, "--heat-maps", 0, "--out", tmp_path / str(i))
        found = json.loads((tmp_path / str(i) / "predictions.json").read_text())
        predicted.append([found["photos"][0]["shares"], found["photos"][0]["regions"]])
    assert predicted[0][0] and all(each == predicted[0] for each in predicted)


def test_predict__given_boxes_are_named_in_their_order(run: Path, scenes: Path, tmp_path: Path) -> None:
    boxes = [[0, 0, 96, 40], [40, 60, 30, 20]]
    document = {
        "images": [{"id": 1, "file_name": "b.png"}],
        "annotations": [{"image_id": 1, "bbox": box} for box in boxes],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    words = ["predict", scenes, "--run", run, "--categories", "scenes", "--out", tmp_path / "out"]
    said = passed(*words, "--proposals", tmp_path / "boxes.json", "--heat-maps", 1)
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert "no box for 2 of 3 photos" in said
    counts = {Path(each["photo"]).relative_to(scenes).as_posix(): each["regions"] for each in found["photos"]}
    assert [len(each) for each in counts.values()] == [0, 2, 0]
    assert [each["box"] for each in counts["b.png"]] == [[0, 0, 96, 40], [40, 60, 70, 80]]
    document["images"][0]["file_name"] = "other.png"
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    assert "No photo is called" in refused(*words, "--proposals", tmp_path / "boxes.json")


def test_predict__hostile_photos_are_each_skipped_with_a_word(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = render(0, "test", 0).image
    photo = Image.fromarray(pixels)
    # What can be read, whatever it is.
    lying = Image.Exif()
    lying[Image.ExifTags.Base.Orientation] = 6
    photo.crop((0, 0, 96, 60)).save(folder / "lying.jpg", exif=lying)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    photo.convert("P").save(folder / "palette.gif")
    photo.save(folder / "\n\x1b[31m - 'odd' $(x) .png")
    photo.save(os.fsencode(folder) + b"/caf\xe9.png", "PNG")
    photo.save(folder / f"{'l' * 240}.png")
    # What cannot.
    photo.save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:300])
    (folder / "whole.jpg").unlink()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no photo")
    huge = b"P6 40000 40000 255\n"
    (folder / "named.png").write_bytes(huge)
    Image.new("1", (20000, 20000)).save(folder / "huge.png")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "fractions.tif")
    said = passed(
        "predict", folder, "--run", run, "--names", "sky, road", "--heat-maps", 0, "--out", tmp_path / "out"
    )
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert "Traceback" not in said and "\x1b" not in said
    left_out = {Path(name).name: reason for name, reason in found["left_out"].items()}
    for name, word in {
        "cut.jpg": "is cut short",
        "empty.png": "is empty",
        "text.jpg": "is no picture",
        "named.png": "is no picture",
        "huge.png": "more pixels",
        "fractions.tif": "fractions",
    }.items():
        assert word in left_out.pop(name)
    assert left_out == {} and "6 photos are left out" in said
    assert len(found["photos"]) == 7
    sizes = {Path(each["photo"]).name: (each["width"], each["height"]) for each in found["photos"]}
    assert sizes["lying.jpg"] == (60, 96) and sizes["caf\\xe9.png"] == (96, 96)
    assert all(Path(file).is_file() for each in found["photos"] for file in each["pictures"].values())


def test_predict__without_names_the_categories_of_the_runs_store(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    store = Store.create(str(tmp_path / "store"), {"name": "folder", "split": "train"}, 96, [1])
    target = {"name": "labels", "categories": ["sky", "bus", "road"]}
    codec = {"name": "topk", "things": [False, True, False]}
    store.add_column(
        "targets", "t", {"target": target, "codec": codec, "regions": None}, {"categories": "mine.txt"}
    )
    mine = tmp_path / "run"
    shutil.copytree(run / "export", mine / "export")
    (mine / "config.json").write_text(json.dumps({"store": store.root}))
    said = passed("predict", scenes / "a.png", "--run", mine)
    assert "The categories of the run's store are taken: mine.txt (3)." in said
    found = json.loads((mine / "predictions" / "predictions.json").read_text())
    assert found["names"] == ["sky", "bus", "road"]
    # With things and stuff known, boxes are of things.
    assert {region["name"] for region in found["photos"][0]["regions"]} <= {"bus"}


def test_predict__refusals_say_what_to_give(run: Path, scenes: Path, tmp_path: Path, monkeypatch) -> None:
    # Where no earlier run is found.
    monkeypatch.chdir(tmp_path)
    photo = scenes / "a.png"
    assert "--run or --student" in refused("predict", photo, "--names", "a")
    assert "--names or --categories" in refused("predict", photo, "--run", run, code=2)
    assert "Missing argument" in refused("predict", "--run", run, "--names", "a", code=2)
    assert "no name" in refused("predict", photo, "--run", run, "--names", " , ")
    assert "--heat b" in refused("predict", photo, "--run", run, "--names", "a", "--heat", "b")
    assert "no photo or folder" in refused("predict", tmp_path / "x.jpg", "--run", run, "--names", "a")
    assert "No photo matches" in refused("predict", tmp_path / "*.jpg", "--run", run, "--names", "a")
    (tmp_path / "none").mkdir()
    assert "no photo in" in refused("predict", tmp_path / "none", "--run", run, "--names", "a")
    assert "no text tower" in refused("predict", photo, "--student", "scenes-vfm", "--names", "a")
    assert "There is no exported student" in refused("predict", photo, "--run", tmp_path, "--names", "a")
    assert "is no picture" in refused("predict", scenes / "notes.txt", "--run", run, "--names", "a")


def test_predict__a_pattern_and_what_it_leaves_out(run: Path, scenes: Path, tmp_path: Path) -> None:
    words = ["--run", run, "--names", "sky, road", "--heat-maps", 0, "--out", tmp_path / "out"]
    said = passed("predict", scenes / "*", scenes / "a.png", *words)
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    # The folder `sub` matches too; a photo that is named twice is seen once.
    assert len(found["photos"]) == 3 and "notes.txt" in said


def test_predict__random_weights_are_said_so(scenes: Path, tmp_path: Path) -> None:
    words = ["--student", "scenes-s", "--weights", "scenes-s=random:0", "--heat-maps", 0, "--out", tmp_path]
    assert "random" in passed("predict", scenes / "a.png", *words, "--names", "sky, road")
