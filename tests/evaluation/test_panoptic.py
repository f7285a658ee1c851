"""Panoptic ground truth is read as it is annotated, in both layouts."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from densecli.core.errors import DenseCLIError
from densecli.evaluation.annotations import canonical, match_categories
from densecli.evaluation.panoptic import PanopticDataset, mask_box, segment_ids
from densecli.models.categories import Categories, load_categories

NAMES = ("cat", "boat", "sea", "sky")
THING = (True, True, False, False)
SET = Categories(name="four", names=NAMES, thing=np.array(THING))


def halves(height=24, width=40):
    left = np.zeros((height, width), bool)
    left[:, : width // 2] = True
    return left, ~left


def photo_of(height=24, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def test_segment_ids__all_three_bytes_count():
    png = Image.fromarray(np.array([[[1, 2, 3], [255, 255, 255], [0, 0, 0]]], np.uint8))
    assert segment_ids(png).tolist() == [[1 + 2 * 256 + 3 * 65536, 2**24 - 1, 0]]


@pytest.mark.parametrize("layout", ["coco", "ade"])
def test_dataset__reads_segments_of_each_layout(write_panoptic, layout):
    left, right = halves()
    root = write_panoptic(layout, NAMES, THING, [(photo_of(), [(1, left, False), (2, right, False)])])
    dataset = PanopticDataset(root, "val", SET)
    sample = dataset[0]
    assert len(dataset) == 1 and dataset.matched_by == "name" and sample.key == "0000"
    np.testing.assert_array_equal(np.asarray(sample.photo), photo_of())
    assert [(s.category, s.thing, s.area) for s in sample.segments] == [(1, True, 480), (2, False, 480)]
    np.testing.assert_array_equal(sample.segments[0].mask, left)
    assert [s.box.tolist() for s in sample.segments] == [[0, 0, 20, 24], [20, 0, 40, 24]]


def test_dataset__crowds_are_left_out_or_counted(write_panoptic):
    left, right = halves()
    root = write_panoptic("coco", NAMES, THING, [(photo_of(), [(0, left, True), (3, right, False)])])
    assert [s.category for s in PanopticDataset(root, "val", SET)[0].segments] == [3]
    counted = PanopticDataset(root, "val", SET, crowds=True)
    assert [s.category for s in counted[0].segments] == [0, 3] and counted.crowd_segments == 1


def test_dataset__ade_thing_painted_over_keeps_its_box_or_goes(write_panoptic):
    left, right = halves()
    whole = left | right
    painted = [(0, left, False), (1, whole, False), (2, right, False)]  # the first has no pixel left
    segments = PanopticDataset(write_panoptic("ade", NAMES, THING, [(photo_of(), painted)]), "val", SET)[
        0
    ].segments
    assert [s.category for s in segments] == [1, 2]
    assert segments[0].box.tolist() == [0, 0, 40, 24] and segments[0].area == 480


def test_dataset__limit_takes_the_first_by_name(write_panoptic):
    left, _ = halves()
    root = write_panoptic("coco", NAMES, THING, [(photo_of(seed=s), [(0, left, False)]) for s in range(3)])
    dataset = PanopticDataset(root, "val", SET, limit=2)
    assert [dataset[i].key for i in range(len(dataset))] == ["0000", "0001"]


def test_mask_box__agrees_with_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((17, 23)) > rng.choice([0.5, 0.97])
        if not mask.any():
            continue
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        x, y, width, height = coco_mask.toBbox(rle)
        assert mask_box(mask).tolist() == [x, y, x + width, y + height]
        assert coco_mask.area(rle) == mask.sum()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("window", "window "), ("tree", "tree-merged"), ("hot dog", "Hot_Dog"), ("road, route", "road,  route")],
)
def test_canonical__spelling_that_does_not_count(ours, theirs):
    assert canonical(ours) == canonical(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("door", "door-stuff"), ("wall-other", "wall"), ("sky", "sky-other")]
)
def test_canonical__different_classes_stay_apart(ours, theirs):
    assert canonical(ours) != canonical(theirs)


@pytest.mark.parametrize("name", ["coco_panoptic_133", "ade_panoptic_150"])
def test_match_categories__every_name_of_a_shuffled_json(name):
    categories = load_categories(name)
    order = np.random.default_rng(0).permutation(len(categories.names))
    entries = [{"id": 1000 + k, "name": f"{categories.names[c]} "} for k, c in enumerate(order)]
    index, matched_by = match_categories(entries, categories)
    assert matched_by == "name" and index == {1000 + k: c for k, c in enumerate(order)}


def test_match_categories__same_count_other_names_go_by_order_of_id():
    entries = [
        {"id": 30, "name": "c"},
        {"id": 10, "name": "a"},
        {"id": 20, "name": "b"},
        {"id": 40, "name": "d"},
    ]
    assert match_categories(entries, SET) == ({10: 0, 20: 1, 30: 2, 40: 3}, "order")


def test_match_categories__names_that_are_missing_are_listed():
    with pytest.raises(DenseCLIError, match=r"2 of 3 .* four .*: zebra, giraffe"):
        match_categories([{"id": i, "name": n} for i, n in enumerate(["cat", "zebra", "giraffe"])], SET)


def test_match_categories__a_name_the_set_has_twice_is_no_match():
    twice = Categories(name="twice", names=("cat", "fruit", "Fruit"), thing=np.array([True, True, False]))
    with pytest.raises(DenseCLIError, match="fruit"):
        match_categories([{"id": 1, "name": "cat"}, {"id": 2, "name": "fruit"}], twice)


def test_dataset__nothing_there_names_both_places(tmp_path):
    with pytest.raises(DenseCLIError, match=r"panoptic_val\.json nor .*ade20k_panoptic_val\.json"):
        PanopticDataset(tmp_path, "val", SET)


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}'])
def test_dataset__foreign_json(tmp_path, content):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "panoptic_val.json").write_text(content)
    with pytest.raises(DenseCLIError, match="not a panoptic annotation file"):
        PanopticDataset(tmp_path, "val", SET)


def test_dataset__photo_missing_or_of_another_size(write_panoptic):
    left, _ = halves()
    root = write_panoptic("coco", NAMES, THING, [(photo_of(), [(0, left, False)])])
    path = root / "val" / "0000.png"
    Image.fromarray(photo_of(30, 40)).save(path)
    with pytest.raises(DenseCLIError, match="40x24 px, its photo 40x30"):
        PanopticDataset(root, "val", SET)[0]
    path.unlink()
    with pytest.raises(DenseCLIError, match="Could not read"):
        PanopticDataset(root, "val", SET)[0]


def test_dataset__real_coco_val(shared_data):
    root = shared_data / "coco128"
    categories = load_categories("133")
    dataset = PanopticDataset(root, "val2017", categories)
    content = json.loads((root / "annotations" / "panoptic_val2017.json").read_text())
    assert dataset.matched_by == "name"
    names = {c["id"]: c["name"] for c in content["categories"]}
    index, _ = match_categories(content["categories"], categories)
    assert len(index) == 133 and sorted(index.values()) == list(range(133))
    assert all(categories.names[i] == names[id] for id, i in index.items())
    infos = {
        a["image_id"]: [s for s in a["segments_info"] if not s["iscrowd"]] for a in content["annotations"]
    }
    assert len(dataset) == len(infos) == 50
    for i in range(len(dataset)):
        sample = dataset[i]
        truth = infos[int(sample.key)]
        assert [s.area for s in sample.segments] == [info["area"] for info in truth]
        for segment, info in zip(sample.segments, truth, strict=True):
            x, y, width, height = info["bbox"]
            assert mask_box(segment.mask).tolist() == segment.box.tolist() == [x, y, x + width, y + height]
            rle = coco_mask.encode(np.asfortranarray(segment.mask.astype(np.uint8)))
            assert coco_mask.area(rle) == segment.area
            assert coco_mask.toBbox(rle).tolist() == [x, y, width, height]
            assert categories.names[segment.category] == names[info["category_id"]]
