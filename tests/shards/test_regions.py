import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densecli.core.errors import DenseCLIError
from densecli.shards import regions as of_regions
from densecli.shards.geometry import Canvas
from densecli.shards.keys import column_key
from densecli.shards.region_plans import region_plan
from densecli.shards.regions import PAIRS, GridPlan, Grids, Regions, cells_of_visit, view_of

# The pair sets written out: (rows, columns).
PAPER = [(m, n) for m in (2, 3, 4, 5, 6) for n in (2, 3, 4, 5, 6)]
DENSEVLM = [
    *[(2, n) for n in (2, 3, 4)],
    *[(3, n) for n in (3, 4, 5, 6)],
    *[(4, n) for n in (3, 4, 5, 6)],
    *[(5, n) for n in (4, 5, 6)],
    *[(6, n) for n in (4, 5, 6)],
]
CLIPSELF = [
    *[(1, n) for n in (1, 2)],
    *[(2, n) for n in (1, 2, 3, 4)],
    *[(3, n) for n in (2, 3, 4, 5, 6)],
    *[(4, n) for n in (2, 3, 4, 5, 6)],
    *[(5, n) for n in (3, 4, 5, 6)],
    *[(6, n) for n in (3, 4, 5, 6)],
]
SQUARE = [(1, 1), (2, 2), (3, 3), (4, 4), (6, 6)]


@pytest.mark.parametrize(
    ("pairs", "expected", "cells"),
    [("paper", PAPER, 400), ("densevlm", DENSEVLM, 309), ("clipself", CLIPSELF, 361), ("square", SQUARE, 66)],
)
@pytest.mark.parametrize(("width", "height"), [(640, 480), (333, 500), (97, 97), (1000, 20)])
def test_grid__every_cell_is_its_formula(pairs, expected, cells, width, height):
    canvas = Canvas(512)
    w, h = canvas.fit(width, height)
    regions = region_plan(f"grid-{pairs}").boxes(canvas.valid_box(width, height))
    assert regions.n_views == len(expected)
    assert len(regions.boxes) == cells == regions.offsets[-1]
    assert (regions.boxes.dtype, regions.offsets.dtype) == (np.float32, np.int32)
    seen = 0
    for view, (m, n) in enumerate(expected):
        assert list(regions.view(view)) == list(range(seen, seen + m * n))
        for i in range(m):
            for j in range(n):
                formula = (j * w / n / 512, i * h / m / 512, (j + 1) * w / n / 512, (i + 1) * h / m / 512)
                np.testing.assert_allclose(regions.boxes[seen], formula, rtol=3e-7)
                seen += 1


@given(st.sampled_from(sorted(PAIRS)), st.floats(0.01, 1), st.floats(0.01, 1))
def test_grid__a_view_tiles_the_photo_without_gap_or_overlap(pairs, w, h):
    regions = GridPlan(pairs).boxes([0, 0, w, h])
    for view in range(regions.n_views):
        boxes = regions.boxes[regions.view(view)].astype(np.float64)
        area = (boxes[:, 2] - boxes[:, 0]) @ (boxes[:, 3] - boxes[:, 1])
        assert area == pytest.approx(w * h, rel=1e-5)
        np.testing.assert_allclose([*boxes[:, :2].min(0), *boxes[:, 2:].max(0)], [0, 0, w, h], rtol=1e-6)


def test_grid__photos_of_one_size_share_their_boxes_as_far_as_memory_allows(monkeypatch):
    monkeypatch.setattr(of_regions, "_MOST_KEPT", 2 * 1600)
    grids, valid = Grids(((40, 40),)), [0, 0, 1, 0.75]
    boxes = grids.boxes(valid).boxes
    assert grids.boxes(np.array(valid)).boxes is boxes
    assert Grids(((40, 40),)).boxes([0, 0, 0.75, 1]).boxes is not boxes
    with pytest.raises(ValueError, match="read-only"):
        boxes[0] = 0
    one_more = [0, 0, 1, 0.5]
    assert grids.boxes(one_more).boxes is not grids.boxes(one_more).boxes
    assert np.array_equal(grids.boxes(one_more).boxes[-1], np.float32([39 / 40, 0.5 * 39 / 40, 1, 0.5]))
    assert [grids.by_valid_box.keeps(tuple(each)) for each in (valid, one_more)] == [True, False]


def test_plan__each_pair_set_has_its_own_key():
    assert len({column_key(GridPlan(pairs).spec) for pairs in PAIRS}) == len(PAIRS)


def test_plan__an_unknown_name_lists_the_known_ones():
    with pytest.raises(DenseCLIError, match="grid-foo") as caught:
        region_plan("grid-foo")
    assert "grid-paper" in caught.value.hint


def test_view_of__known_values():
    # Stores outlive releases: these may never change.
    assert [view_of("000000000139", epoch, 25) for epoch in range(8)] == [6, 9, 8, 7, 1, 12, 14, 5]


def test_view_of__uniform_over_views_and_independent_between_epochs():
    n_views, keys = 25, [f"{i:012d}" for i in range(5000)]
    first, second = ([view_of(key, epoch, n_views) for key in keys] for epoch in (0, 1))
    for views in (first, second):
        counts = np.array([Counter(views)[v] for v in range(n_views)])
        # Chi-square with 24 degrees of freedom: 51.2 is its 99.9 % point. The keys are fixed, so no flake.
        assert ((counts - 200) ** 2 / 200).sum() < 51.2
    same = sum(a == b for a, b in zip(first, second, strict=True))
    assert 150 < same < 250


def test_cells_of_visit__clipself_takes_twenty_others_take_all():
    assert (region_plan("grid-clipself").max_cells, region_plan("grid-paper").max_cells) == (20, None)
    assert list(cells_of_visit("a", 0, 36, None)) == list(range(36))
    assert list(cells_of_visit("a", 0, 20, 20)) == list(range(20))
    assert len(cells_of_visit("a", 0, 36, 20)) == 20


@given(st.text(), st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40))
def test_cells_of_visit__sorted_distinct_cells_that_key_and_epoch_decide(key, epoch, n_cells, max_cells):
    cells = cells_of_visit(key, epoch, n_cells, max_cells)
    assert len(cells) == min(n_cells, max_cells)
    assert list(cells) == sorted(set(cells.tolist()) & set(range(n_cells)))
    assert list(cells) == list(cells_of_visit(key, epoch, n_cells, max_cells))


def test_cells_of_visit__every_cell_is_taken_equally_often():
    counts = np.zeros(36)
    for i in range(3000):
        counts[cells_of_visit(f"{i:012d}", i % 6, 36, 20)] += 1
    # Binomial(3000, 20/36): sd 27. The keys are fixed, so no flake.
    assert np.abs(counts - 3000 * 20 / 36).max() < 4 * 27.3


def test_cells_of_visit__known_values():
    assert list(cells_of_visit("000000000139", 0, 9, 4)) == [0, 3, 4, 8]


@pytest.fixture
def proposals(tmp_path):
    """A plan of a file with these boxes for a.jpg."""

    def plan(boxes, **more):
        annotations = [{"image_id": 7, "bbox": box} | more_of for box, more_of in boxes]
        document = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": annotations, **more}
        (tmp_path / "boxes.json").write_text(json.dumps(document))
        return region_plan("proposals", str(tmp_path / "boxes.json"))

    return plan


def about(source="a.jpg"):
    return {"width": 2000, "height": 1000, "source": source, "valid": [0, 0, 1, 0.5]}


def test_proposals__are_cut_at_the_edge_and_of_a_size(proposals):
    too_small, too_large = [0, 0, 7, 9], [0, 0, 1100, 1000]
    boxes = [([1900, 0, 500, 100], {}), (too_small, {}), (too_large, {}), ([0, 500, 8, 8], {})]
    regions = proposals(boxes).of_photo(about())
    expected = [[0.95, 0, 1, 0.05], [0, 0.25, 0.004, 0.254]]
    np.testing.assert_allclose(regions.boxes, expected, atol=1e-7)
    assert (regions.boxes.dtype, regions.offsets.tolist()) == (np.float32, [0, 2])


def test_proposals__the_twenty_surest_come_first(proposals):
    boxes = [([10 * i, 0, 10, 10], {"score": i / 100}) for i in range(30)]
    regions = proposals(boxes).of_photo(about())
    np.testing.assert_allclose(regions.boxes[:, 0] * 2000, [10 * i for i in range(29, 9, -1)], atol=1e-3)


def test_proposals__a_photo_without_any_has_one_empty_view(proposals):
    regions = proposals([([0, 0, 100, 100], {})]).of_photo(about("b.jpg"))
    assert (regions.boxes.shape, regions.n_views, len(regions.view(0))) == ((0, 4), 1, 0)


def test_proposals__the_file_is_in_the_key_and_travels_unread(proposals):
    plans = [proposals([([0, 0, side, side], {})]) for side in (50, 60)]
    assert plans[0] == plans[1] and len(pickle.dumps(plans[1])) < 500
    assert plans[1].spec != proposals([([0, 0, 50, 50], {})]).spec


def test_proposals__a_file_that_is_not_there_or_of_another_layout(proposals, tmp_path):
    with pytest.raises(DenseCLIError, match="needs a file"):
        _ = region_plan("proposals").spec
    with pytest.raises(DenseCLIError, match=r"no file .*nowhere\.json"):
        _ = region_plan("proposals", str(tmp_path / "nowhere.json")).spec
    with pytest.raises(DenseCLIError, match="layout of COCO"):
        proposals([], annotations=[{"bbox": [0, 0, 9, 9]}]).of_photo(about())


@pytest.mark.parametrize("kind", [np.uint64, np.int64, np.uint8])
def test_regions__offsets_of_any_whole_numbers_index_boxes(kind):
    found = Regions.of({"boxes": np.ones((3, 4), np.float32), "offsets": np.array([0, 2, 3], kind)})
    assert found.offsets.dtype == np.int32
    # What a visit adds to them.
    assert found.boxes[found.offsets[1] + np.arange(1)].shape == (1, 4)
