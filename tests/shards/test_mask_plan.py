"""Masks as regions: which are kept, how they are dealt to views, and grids where there are none."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from densecli.shards.geometry import Canvas
from densecli.shards.mask_plan import MaskPlan
from densecli.shards.region_plans import region_plan
from densecli.shards.segmentation import Annotation, PhotoMasks, packed

CANVAS = Canvas(100)
ABOUT = {"width": 200, "height": 100, "valid": [0, 0, 1, 0.5]}


def annotated(*rows: tuple[list[int], float, float]) -> PhotoMasks:
    """Rectangles x, y, width, height in pixels of the photo, with predicted IoU and stability."""
    found = []
    for (x, y, width, height), iou, stability in rows:
        bitmap = np.zeros((100, 200), bool)
        bitmap[y : y + height, x : x + width] = True
        found.append(Annotation({"size": [100, 200], "counts": packed([bitmap])[0].decode()}, iou, stability))
    return PhotoMasks(annotations=found)


def test_masks__are_those_sure_and_stable_and_large_enough_surest_first() -> None:
    sure, surer = ([0, 0, 40, 20], 0.9, 0.96), ([190, 90, 10, 10], 0.97, 0.95)
    unsure, unstable, small = ([0, 0, 40, 20], 0.87, 1), ([0, 0, 40, 20], 1, 0.94), ([0, 0, 2, 2], 1, 1)
    regions, counts = MaskPlan().of_photo(ABOUT, annotated(sure, unsure, surer, unstable, small), CANVAS)
    np.testing.assert_allclose(regions.boxes, [[0.95, 0.45, 1, 0.5], [0, 0, 0.2, 0.1]], atol=1e-7)
    assert (regions.boxes.dtype, regions.offsets.tolist()) == (np.float32, [0, 2])
    assert regions.masks and regions.masks.size.tolist() == [50, 100]
    assert [regions.masks.bitmap(row).sum() for row in (0, 1)] == [25, 200]
    assert (counts.photos, counts.on_grids, counts.masks) == (1, 0, 2)
    assert counts.left_out == {"below --min-iou or --min-stability": 2, "smaller than --min-area": 1}


def test_masks__without_scores_the_largest_come_first_and_the_most_are_a_limit() -> None:
    rows = [([20 * i, 0, 4 + 2 * i, 10], 1.0, 1.0) for i in range(6)]
    regions, counts = replace(MaskPlan(), max_masks=4).of_photo(ABOUT, annotated(*rows), CANVAS)
    assert (regions.boxes[:, 0] * 200).round().tolist() == [100, 80, 60, 40]
    assert counts.left_out == {"more than --max-masks": 2}


@pytest.mark.parametrize(("n", "sizes"), [(20, [20]), (21, [11, 10]), (47, [16, 16, 15])])
def test_masks__many_are_dealt_to_views_alike(n, sizes) -> None:
    rows = [([2 * i, 0, 20, 20], 0.9 + i / 1000, 1.0) for i in range(n)]
    regions, _ = MaskPlan().of_photo(ABOUT, annotated(*rows), CANVAS)
    assert np.diff(regions.offsets).tolist() == sizes
    assert sorted((regions.boxes[:, 0] * 200).round().astype(int).tolist()) == [2 * i for i in range(n)]
    if n == 47:
        # Every view begins with one of the surest.
        np.testing.assert_allclose(regions.boxes[regions.offsets[:-1], 0] * 200, [92, 90, 88], atol=1e-3)


def test_masks__a_photo_without_any_has_grids_pooled_by_coverage() -> None:
    malformed = PhotoMasks(
        annotations=[Annotation({"size": [9, 9], "counts": "0"})], malformed=Counter(odd=2)
    )
    regions, counts = MaskPlan().of_photo(ABOUT, malformed, CANVAS)
    grid = region_plan("grid-paper").of_photo(ABOUT)
    assert np.array_equal(regions.boxes, grid.boxes) and np.array_equal(regions.offsets, grid.offsets)
    assert (counts.on_grids, counts.masks) == (1, 0)
    assert counts.left_out == {"odd": 2, "of another size than the photo": 1}
    # The first grid has 2 x 2 cells.
    np.testing.assert_allclose(regions.coverage((4, 4))[:4].sum(axis=(1, 2)), [2, 2, 2, 2])


def test_mask_boxes__are_the_same_regions_without_masks() -> None:
    found = annotated(([0, 0, 40, 20], 0.9, 0.96), ([100, 50, 60, 30], 0.95, 1.0))
    of_masks, of_boxes = (
        region_plan(name).of_photo(ABOUT, found, CANVAS)[0] for name in ("masks", "mask-boxes")
    )
    assert of_boxes.masks is None and of_masks.masks is not None
    assert np.array_equal(of_masks.boxes, of_boxes.boxes)


def test_masks__settings_are_in_the_key_and_not_in_the_name() -> None:
    changes = [
        {},
        {"min_iou": 0.8},
        {"min_stability": 0.9},
        {"min_area": 0.1},
        {"max_masks": 9},
        {"pool": "box"},
    ]
    plans = [replace(MaskPlan(), **change) for change in changes]
    assert len({json.dumps(plan.spec) for plan in plans}) == len(changes)
    assert [plan.name for plan in plans] == ["masks"] * 5 + ["mask-boxes"]
