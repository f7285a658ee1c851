"""Masks of regions: run lengths against pycocotools, coverage against a picture of every pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from densecli.shards.masks import Masks, run_lengths
from densecli.shards.npz import decode_npz, npz_bytes
from densecli.shards.regions import Regions
from densecli.shards.segmentation import packed


def masks_of(bitmaps: list[np.ndarray], boxes: int = 0) -> Masks:
    """So many boxes without masks, then the bitmaps."""
    rles = [b""] * boxes + packed(bitmaps)
    return Masks(
        rle=np.frombuffer(b"".join(rles), np.uint8),
        ends=np.cumsum(list(map(len, rles))).astype(np.uint32),
        size=np.array(bitmaps[0].shape, np.int32),
    )


@st.composite
def bitmaps(draw: st.DrawFn) -> list[np.ndarray]:
    height, width = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.02, 0.5, 0.98]))
    found = [rng.random((height, width)) < share for _ in range(3)]
    one = np.zeros((height, width), bool)
    one[rng.integers(height), rng.integers(width)] = True
    return [*found, one, np.ones((height, width), bool), np.zeros((height, width), bool)]


@settings(max_examples=40, deadline=None)
@given(bitmaps(), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_coverage__is_the_share_of_each_cell_that_the_pixels_cover(found, grid) -> None:
    side = max(found[0].shape)
    grid = tuple(min(cells, side) for cells in grid)
    masks = masks_of(found)
    covered = masks.coverage(np.zeros((len(found), 4)), np.arange(len(found)), grid)
    # Every pixel drawn as so many points that each cell has whole ones.
    h, w = grid
    for bitmap, share, row in zip(found, covered, range(len(found)), strict=True):
        canvas = np.zeros((side, side))
        canvas[: bitmap.shape[0], : bitmap.shape[1]] = bitmap
        points = canvas.repeat(h, axis=0).repeat(w, axis=1).reshape(h, side, w, side)
        np.testing.assert_allclose(share, points.mean(axis=(1, 3)), atol=5e-4)
        assert np.array_equal(masks.bitmap(row), bitmap)


def test_coverage__of_a_region_without_a_mask_is_that_of_its_box() -> None:
    one = np.zeros((6, 8), bool)
    one[2:5, 4:8] = True
    masks = masks_of([one], boxes=1)
    boxes = np.array([[4 / 8, 2 / 8, 1, 5 / 8], [0, 0, 0, 0]], np.float32)
    of_box, of_mask = masks.coverage(boxes, np.array([0, 1]), (4, 4))
    assert np.array_equal(of_box, of_mask) and of_mask.sum() == 3
    assert masks.bitmap(0) is None


@settings(max_examples=40, deadline=None)
@given(bitmaps())
def test_run_lengths__are_those_of_pycocotools(found) -> None:
    for bitmap in found:
        encoded = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
        data = np.frombuffer(encoded["counts"], np.uint8)
        lengths, firsts = run_lengths(data, np.array([len(data)]), pixels=bitmap.size)
        assert firsts.tolist() == [0]
        assert (
            coco_mask.frPyObjects({"size": list(bitmap.shape), "counts": lengths.tolist()}, *bitmap.shape)
            == encoded
        )


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=12))
def test_run_lengths__of_anything_are_right_or_refused(data) -> None:
    array = np.frombuffer(data, np.uint8)
    try:
        lengths, _ = run_lengths(array, np.array([len(array)]), pixels=48)
    except ValueError:
        return
    assert lengths.sum() == 48 and lengths.min() >= 0


def test_regions__with_masks_are_stored_and_read() -> None:
    masks = masks_of([np.eye(8, dtype=bool)], boxes=1)
    regions = Regions(np.zeros((2, 4), np.float32), np.array([0, 2], np.int32), masks)
    again = Regions.of(decode_npz(npz_bytes(regions.arrays)))
    assert again.masks and np.array_equal(again.masks.bitmap(1), np.eye(8, dtype=bool))
    assert np.array_equal(again.coverage((2, 2)), regions.coverage((2, 2)))


@pytest.mark.parametrize(
    "change",
    [
        {"rle_ends": np.array([1], np.uint32)},
        {"rle_ends": np.array([2, 1], np.uint32)},
        {"rle_ends": np.array([0, 999], np.uint32)},
        {"rle_ends": np.array([0.0, 1.0])},
        {"rle": np.zeros(9, np.int64)},
        {"size": np.array([8, 1 << 20], np.int32)},
        {"size": np.array([0, 8], np.int32)},
    ],
    ids=str,
)
def test_regions__damaged_masks_are_refused(change) -> None:
    masks = masks_of([np.eye(8, dtype=bool)], boxes=1)
    arrays = Regions(np.zeros((2, 4), np.float32), np.array([0, 2], np.int32), masks).arrays
    with pytest.raises(ValueError, match="its "):
        Regions.of({**arrays, **change})


def test_regions__masks_of_another_size_are_refused_when_they_are_read() -> None:
    masks = masks_of([np.eye(8, dtype=bool)])
    arrays = Regions(np.zeros((1, 4), np.float32), np.array([0, 1], np.int32), masks).arrays
    with pytest.raises(ValueError, match="not those of its pixels"):
        Regions.of({**arrays, "size": np.array([8, 9], np.int32)}).coverage((2, 2))
