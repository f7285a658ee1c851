"""AP of ranked boxes: against a computation from scratch, against COCOeval as it is, and LVIS's rules."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from densecli.evaluation.average_precision import RankedBoxes, average_precisions
from densecli.evaluation.instances import InstancePhoto

CATEGORIES = 3


def photo(boxes, categories, crowds=None, **others) -> InstancePhoto:
    return InstancePhoto(
        name="a.jpg",
        path=Path("a.jpg"),
        size=None,
        boxes=np.array(boxes, float).reshape(-1, 4),
        categories=np.array(categories, int),
        crowds=np.zeros(len(categories), bool) if crowds is None else np.array(crowds, bool),
        **others,
    )


def ranked(boxes, categories, scores) -> RankedBoxes:
    return RankedBoxes(
        boxes=np.array(boxes, float).reshape(-1, 4),
        categories=np.array(categories, int),
        scores=np.array(scores, float),
    )


@pytest.fixture
def fabricated():
    """Twelve photos with boxes of three categories, some crowds, and shifted, mislabelled, ranked boxes."""
    rng = np.random.default_rng(0)
    photos, found = [], []
    for _ in range(12):
        n = rng.integers(1, 6)
        corners = rng.uniform(0, 60, (n, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (n, 2))], 1)
        categories = rng.integers(0, CATEGORIES, n)
        photos.append(photo(boxes, categories, rng.random(n) < 0.15))
        moved = np.repeat(boxes, 2, 0) + rng.normal(0, 3, (2 * n, 4))
        guesses = np.where(rng.random(2 * n) < 0.7, np.repeat(categories, 2), rng.integers(0, 3, 2 * n))
        found.append(ranked(moved, guesses, rng.permutation(2 * n) + rng.random(2 * n)))
    return photos, found


def iou(one, other) -> float:
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    both = sides.prod()
    return both / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - both)


def ap50_from_scratch(photos, found, category) -> float:
    """PASCAL's matching at IoU 0.5, and the mean of the interpolated precision at 101 recalls."""
    hits, scores, count = [], [], 0
    for of_photo, best in zip(photos, found, strict=True):
        truth = of_photo.boxes[of_photo.categories == category]
        count += len(truth)
        free = list(range(len(truth)))
        mine = np.flatnonzero(best.categories == category)
        for i in mine[np.argsort(-best.scores[mine])]:
            overlaps = {k: iou(best.boxes[i], truth[k]) for k in free}
            match = max(overlaps, key=overlaps.get, default=None)
            hit = match is not None and overlaps[match] >= 0.5
            if hit:
                free.remove(match)
            hits.append(hit)
            scores.append(best.scores[i])
    right = np.array(hits)[np.argsort(-np.array(scores))].cumsum()
    precision, recall = right / np.arange(1, len(right) + 1), right / count
    levels = np.linspace(0, 1, 101)
    return float(np.mean([max(precision[recall >= level], default=0) for level in levels]))


def test_ap__as_computed_from_scratch(fabricated):
    photos, found = fabricated
    photos = [replace(each, crowds=np.zeros(len(each.boxes), bool)) for each in photos]
    aps = average_precisions(photos, found, CATEGORIES)
    expected = [ap50_from_scratch(photos, found, c) for c in range(CATEGORIES)]
    assert all(0.1 < each < 0.95 for each in expected)
    assert aps[:, 0] == pytest.approx(expected, abs=1e-9)


def test_ap__as_cocoeval_gives_of_all_categories_at_once(fabricated):
    photos, found = fabricated
    content = {"images": [{"id": i} for i in range(len(photos))], "annotations": []}
    content["categories"] = [{"id": c} for c in range(CATEGORIES)]
    results = []
    for i, (each, best) in enumerate(zip(photos, found, strict=True)):
        for box, category, crowd in zip(each.boxes, each.categories, each.crowds, strict=True):
            size = (box[2:] - box[:2]).tolist()
            about = {"image_id": i, "category_id": int(category), "bbox": [*box[:2].tolist(), *size]}
            about |= {"id": len(content["annotations"]) + 1, "area": size[0] * size[1], "iscrowd": int(crowd)}
            content["annotations"].append(about)
        for box, category, score in zip(best.boxes, best.categories, best.scores, strict=True):
            bbox = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            results.append({"image_id": i, "category_id": int(category), "bbox": bbox, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **content}
        coco.createIndex()
        whole = COCOeval(coco, coco.loadRes(results), "bbox")
        whole.evaluate()
        whole.accumulate()
        whole.summarize()
    aps = average_precisions(photos, found, CATEGORIES)
    assert any(each.crowds.any() for each in photos)
    assert [aps.mean(), aps[:, 0].mean(), aps[:, 5].mean()] == pytest.approx(whole.stats[:3].tolist())


def test_ap__nan_without_an_annotated_box():
    photos, found = [photo([[0, 0, 9, 9]], [0])], [ranked([[0, 0, 9, 9]] * 2, [0, 1], [2, 1])]
    aps = average_precisions(photos, found, 2)
    assert aps[0] == pytest.approx(np.ones(10)) and np.isnan(aps[1]).all()


def test_ap__a_category_of_crowds_alone_does_not_count():
    photos, found = [photo([[0, 0, 9, 9]], [0], [True])], [ranked([[0, 0, 9, 9]], [0], [1])]
    assert np.isnan(average_precisions(photos, found, 1)).all()


LEFT, RIGHT = [0, 0, 20, 20], [50, 0, 70, 20]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({}, 0.5),  # the better box is wrong
        ({"checked": frozenset({1})}, 1.0),  # nobody looked for the category in that photo
        ({"checked": frozenset({0, 1})}, 0.5),
        ({"checked": frozenset({0, 1}), "partial": frozenset({0})}, 1.0),  # it may have been left out
        ({"checked": frozenset({0, 1}), "partial": frozenset({1})}, 0.5),
    ],
)
def test_ap__lvis_counts_only_what_a_photo_was_checked_for(second, expected):
    photos = [photo([LEFT], [0], checked=frozenset({0})) if second else photo([LEFT], [0])]
    photos.append(photo([LEFT], [1], **second))
    found = [ranked([LEFT], [0], [1]), ranked([RIGHT], [0], [2])]
    assert average_precisions(photos, found, 2)[0] == pytest.approx(np.full(10, expected))
