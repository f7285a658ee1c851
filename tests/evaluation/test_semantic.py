"""Layouts of semantic segmentation datasets: each benchmark written small, as published, and read back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.evaluation.benchmarks import BENCHMARKS, IGNORED
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.semantic import PanopticLabels, open_labelled
from densecli.models.categories import Categories

# Benchmark -> photo, PNG, list of names; {} is the name of a photo.
PLACES = {
    "coco": ("val2017/{}.jpg", "stuffthingmaps/val2017/{}.png", None),
    "ade": ("images/validation/{}.jpg", "annotations/validation/{}.png", None),
    "voc": ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "ImageSets/Segmentation/val.txt"),
    "context": (
        "JPEGImages/{}.jpg",
        "SegmentationClassContext/{}.png",
        "ImageSets/SegmentationContext/val.txt",
    ),
    "cityscapes": (
        "leftImg8bit/val/bonn/{}_leftImg8bit.png",
        "gtFine/val/bonn/{}_gtFine_labelIds.png",
        None,
    ),
}
SPLITS = {"coco": "val2017"}
# Benchmark -> layout, {value in the PNG: name of the class, None for what is ignored}.
VALUES = {
    "coco-stuff": (
        "coco",
        {
            0: "person",
            10: "fire hydrant",
            12: "stop sign",
            89: "toothbrush",
            91: "banner",
            181: "wood",
            11: None,
            255: None,
        },
    ),
    "coco-object": ("coco", {0: "person", 89: "toothbrush", 91: "background", 255: "background"}),
    "ade150": ("ade", {0: None, 1: "wall", 150: "flag"}),
    "context59": ("context", {0: None, 1: "aeroplane", 59: "wood"}),
    "context60": ("context", {0: "background", 1: "aeroplane", 59: "wood"}),
    "voc20": ("voc", {0: None, 4: "boat", 20: "tvmonitor", 255: None}),
    "voc21": ("voc", {0: "background", 4: "boat", 20: "tvmonitor", 255: None}),
    "cityscapes": ("cityscapes", {0: None, 7: "road", 9: None, 23: "sky", 33: "bicycle"}),
}
COUNTS = {"coco-stuff": 171, "coco-object": 81, "ade150": 150, "context59": 59, "context60": 60}
COUNTS |= {"voc20": 20, "voc21": 21, "cityscapes": 19}


def write(root: Path, layout: str, labels: list[np.ndarray], mode: str = "L") -> str:
    photo, png, listing = PLACES[layout]
    for n, values in enumerate(labels):
        for place, image in (
            (photo, Image.new("RGB", values.shape[::-1])),
            (png, Image.fromarray(values.astype(np.uint8)).convert(mode)),
        ):
            path = root / place.format(f"p{n}")
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    if listing:
        (root / listing).parent.mkdir(parents=True)
        (root / listing).write_text("".join(f"p{n}\n" for n in range(len(labels))))
    return SPLITS.get(layout, "val")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark__every_value_is_the_published_class(tmp_path, name):
    layout, expected = VALUES[name]
    split = write(tmp_path, layout, [np.zeros((2, 3)), np.array([list(expected)])])
    dataset = open_labelled(name, str(tmp_path), split)
    assert len(dataset) == 2 and dataset[0].labels.shape == (2, 3)
    found = [None if c == IGNORED else dataset.classes.names[c] for c in dataset[1].labels[0]]
    assert [None if name is None else name.split(",")[0] for name in found] == list(expected.values())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark__table_holds_every_class_once(name):
    benchmark = BENCHMARKS[name]()
    values, counts = np.unique(benchmark.table, return_counts=True)
    classes = range(len(benchmark.classes.names))
    assert len(classes) == COUNTS[name] == len(benchmark.classes.prompts)
    assert set(values) - {IGNORED} == set(classes)
    assert all(
        n == 1
        for c, n in zip(values, counts, strict=True)
        if c not in (IGNORED, benchmark.classes.background)
    )


def test_benchmark__background_comes_first_with_its_words():
    voc, context = BENCHMARKS["voc21"]().classes, BENCHMARKS["context60"]().classes
    assert voc.background == context.background == 0
    assert "sky" in voc.prompts[0] and context.prompts[0] == ("background",)
    assert "person in jeans" in voc.prompts[voc.names.index("person")]
    assert BENCHMARKS["voc20"]().classes.background is None


def test_open_labelled__mmsegmentation_s_own_pngs_are_left_out(tmp_path):
    write(tmp_path, "coco", [np.zeros((2, 2))])
    (tmp_path / "stuffthingmaps").rename(tmp_path / "annotations")
    Image.new("L", (2, 2)).save(tmp_path / "annotations" / "val2017" / "p0_labelTrainIds.png")
    assert len(open_labelled("coco-stuff", str(tmp_path), "val2017")) == 1


@pytest.mark.parametrize("name", BENCHMARKS)
def test_open_labelled__says_what_is_not_there(tmp_path, name):
    with pytest.raises(DenseCLIError, match=str(tmp_path)):
        open_labelled(name, str(tmp_path), "val")


def test_labels__coloured_pngs_are_refused(tmp_path):
    write(tmp_path, "ade", [np.ones((2, 2))], mode="RGB")
    with pytest.raises(DenseCLIError, match="not one label"):
        open_labelled("ade150", str(tmp_path), "val")[0]


def test_labels__another_size_than_the_photo_is_refused(tmp_path):
    write(tmp_path, "ade", [np.ones((2, 2))])
    Image.new("RGB", (3, 2)).save(tmp_path / "images" / "validation" / "p0.jpg")
    with pytest.raises(DenseCLIError, match="2x2 px, its photo 3x2"):
        open_labelled("ade150", str(tmp_path), "val")[0]


def test_panoptic_labels__segments_become_classes_and_crowds_are_ignored(write_panoptic):
    names, thing = ("cat", "sea"), np.array([True, False])
    left = np.zeros((4, 6), bool)
    left[:, :2] = True
    middle = np.roll(left, 2, axis=1)
    photo = np.zeros((4, 6, 3), np.uint8)
    root = write_panoptic("coco", names, thing, [(photo, [(1, left, False), (0, middle, True)])])
    dataset = PanopticLabels(PanopticDataset(root, "val", Categories(name="two", names=names, thing=thing)))
    np.testing.assert_array_equal(dataset[0].labels, np.where(left, 1, IGNORED))
