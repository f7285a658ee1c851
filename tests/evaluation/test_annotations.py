"""Panoptic ground truth as people have it: a sentence that names the place, no numbers from nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.page import Table
from densecli.evaluation.evaluation_request import EvaluationResult, with_absent
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.semantic import PanopticLabels
from densecli.models.categories import Categories

SET = Categories(name="two", names=("bus", "sky"), thing=(True, False))
SKY, BUS = 1007, 70000


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., PanopticDataset]:
    """Two photos with a sky and a bus each; `change` gets the JSON before it is written, `png` the ids."""

    def write(
        change: Callable[[dict], object] = lambda document: None,
        picture: Callable[[np.ndarray], Image.Image] = Image.fromarray,
    ) -> PanopticDataset:
        pngs = tmp_path / "annotations" / "panoptic_val"
        for folder in (pngs, tmp_path / "val"):
            folder.mkdir(parents=True, exist_ok=True)
        document: dict = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "bus"}, {"id": 2, "name": "sky"}],
        }
        ids = np.zeros((24, 32), np.int64)
        ids[:12], ids[12:, 8:24] = SKY, BUS
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        for i in range(2):
            Image.new("RGB", (32, 24)).save(tmp_path / "val" / f"{i}.jpg")
            picture(rgb).save(pngs / f"{i}.png")
            segments = [
                {"id": SKY, "category_id": 2, "iscrowd": 0, "bbox": None},
                {"id": BUS, "category_id": 1, "iscrowd": 0, "bbox": [8, 12, 16, 12]},
            ]
            document["images"].append({"id": i, "file_name": f"{i}.jpg"})
            document["annotations"].append(
                {"image_id": i, "file_name": f"{i}.png", "segments_info": segments}
            )
        change(document)
        (tmp_path / "annotations" / "panoptic_val.json").write_text(json.dumps(document))
        return PanopticDataset(tmp_path, "val", SET)

    return write


def bus(document: dict) -> dict:
    return document["annotations"][1]["segments_info"][1]


def test_dataset__stuff_needs_no_box(dataset):
    found = dataset()[0]
    assert [(s.category, s.thing, s.area) for s in found.segments] == [
        (1, False, 12 * 32),
        (0, True, 12 * 16),
    ]
    assert found.segments[0].box.tolist() == [0, 0, 32, 12]


@pytest.mark.parametrize(
    "box",
    [None, [1, 2, 3], [float("nan"), 1, 2, 3], [1, 2, -3, 4], "1234", [1, 2, 10**30, 4], [True, 1, 2, 3]],
)
def test_dataset__a_bad_box_of_a_thing_is_named(dataset, box):
    with pytest.raises(DenseCLIError, match=rf"the segment {BUS} of 1\.png has the bbox"):
        dataset(lambda document: bus(document).update(bbox=box))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: bus(d).pop("bbox"), f"the segment {BUS} of 1.png has the bbox null"),
        (
            lambda d: bus(d).update(category_id=99),
            "category_id 99, which none of its 2 categories has",
        ),
        (lambda d: bus(d).update(category_id=[1]), "has the category_id [1]"),
        (lambda d: bus(d).pop("category_id"), "has the category_id null"),
        (lambda d: bus(d).pop("id"), "the segment 1 of 1.png has no id"),
        (lambda d: bus(d).update(id=SKY), f"the segment {SKY} of 1.png is there twice"),
        (lambda d: d["annotations"][1].pop("segments_info"), "annotations[1] has no list of segments_info"),
        (lambda d: d["annotations"][1].update(image_id=7), "annotations[1] has the image_id 7"),
        (lambda d: d["annotations"][1].update(image_id=0), "the image 0 is annotated twice"),
        (lambda d: d["annotations"][1].pop("file_name"), "annotations[1] has no file_name"),
        (lambda d: d["images"][1].update(file_name="../1.jpg"), "leads out of its folder"),
        (lambda d: d["images"][1].update(file_name="/etc/passwd"), "leads out of its folder"),
        (lambda d: d["images"][1].update(file_name="a\0b"), "images[1] has no file_name"),
        (lambda d: d["images"][1].pop("id"), "images[1] has no id"),
        (lambda d: d["images"][1].update(id=0), "two images have the id 0"),
        (
            lambda d: d["categories"][1].pop("name"),
            "categories[1] has no id",
        ),
        (lambda d: d.pop("categories"), "it has no list of categories"),
        (lambda d: d["annotations"].append(None), "it has no list of annotations"),
        (
            lambda d: d.update(
                annotations=[{"id": 1, "image_id": 0, "bbox": [0, 0, 9, 9], "segmentation": []}]
            ),
            "an annotation file of instances, not a panoptic one",
        ),
    ],
)
def test_dataset__a_malformed_part_is_named(dataset, change, told):
    with pytest.raises(DenseCLIError) as caught:
        dataset(change)
    assert told in str(caught.value) and caught.value.hint


def test_dataset__segments_that_are_not_in_the_png_are_counted(dataset):
    found = dataset(lambda document: bus(document).update(id=5))
    assert found.absent == 0
    assert [len(found[i].segments) for i in range(2)] == [2, 1]
    assert found.absent == 1 and PanopticLabels(found).absent == 1
    result = EvaluationResult(
        tables=[Table(title="", columns=["a"], rows=[["1"]], note="Percent.")], values={"m": {"miou": 1.0}}
    )
    told = with_absent(result, Distributed(device="cpu"), PanopticLabels(found))
    assert told.values["m"]["absent_segments"] == 1
    assert told.tables[0].note.startswith("Percent. 1 segments are left out")


def test_dataset__a_photo_that_loses_every_segment_shows_the_ids_of_both_sides(dataset):
    def other(document: dict) -> None:
        for i, segment in enumerate(document["annotations"][0]["segments_info"]):
            segment["id"] = 5 + i

    with pytest.raises(DenseCLIError) as caught:
        dataset(other)[0]
    assert "None of the 2 segments of 0.jpg" in str(caught.value)
    assert f"the json has the ids 5, 6, the PNG 0, {SKY}, {BUS}" in str(caught.value)
    assert "same release" in caught.value.hint


def test_dataset__channels_in_another_order_are_recognised(dataset):
    with pytest.raises(DenseCLIError, match="None of the 2 segments") as caught:
        dataset(picture=lambda rgb: Image.fromarray(rgb[..., ::-1].copy()))[0]
    assert "BGR" in caught.value.hint


def test_dataset__a_photo_of_crowds_alone_has_no_segment_and_is_no_error(dataset):
    def crowds(document: dict) -> None:
        for segment in document["annotations"][0]["segments_info"]:
            segment["iscrowd"] = 1

    assert dataset(crowds)[0].segments == ()


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (lambda rgb: Image.fromarray(rgb[..., 0].astype(np.uint16)), "pixels of mode I;16"),
        (lambda rgb: Image.fromarray(rgb[..., 0]), "pixels of mode L"),
        (lambda rgb: Image.fromarray(rgb).quantize(8), "pixels of mode P"),
        (lambda rgb: Image.fromarray(rgb[:9].copy()), "0.png is 32x9 px, its photo 32x24"),
    ],
)
def test_dataset__a_png_of_another_mode_or_size(dataset, picture, told):
    with pytest.raises(DenseCLIError) as caught:
        dataset(picture=picture)[0]
    assert told in str(caught.value)


def test_dataset__a_png_that_is_missing_or_too_large(dataset, tmp_path, monkeypatch):
    found = dataset()
    (tmp_path / "annotations" / "panoptic_val" / "0.png").unlink()
    with pytest.raises(DenseCLIError, match=r"Could not read .*0\.png: No such file"):
        found[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DenseCLIError, match=r"1\.jpg has more pixels than are decoded"):
        found[1]
