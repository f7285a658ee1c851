"""Affinities before and after: the point lies inside, and every model has its panel."""

import numpy as np
import pytest

from densecli.evaluation.affinity_figures import affinity_figures, inner_point
from densecli.evaluation.panoptic import PanopticDataset
from densecli.models.categories import Categories

SET = Categories(name="two", names=("cat", "sky"), thing=np.array([True, False]))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(0, 4), slice(0, 4)), (slice(10, 40), slice(0, 60)), (slice(3, 4), slice(5, 6))],
)
def test_inner_point__is_the_middle_of_a_block(rows, columns):
    mask = np.zeros((40, 60), bool)
    mask[rows, columns] = True
    x, y = inner_point(mask)
    middle = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
    assert (x * 60, y * 40) == pytest.approx(middle, abs=max(1, (columns.stop - columns.start) / 4))


def test_inner_point__of_a_ring_is_on_the_ring():
    mask = np.ones((40, 40), bool)
    mask[8:32, 8:32] = False
    x, y = inner_point(mask)
    assert mask[int(y * 40), int(x * 40)]


def test_affinity_figures__a_thing_then_stuff_and_a_panel_for_each_model(write_panoptic):
    cat = np.zeros((32, 32), bool)
    cat[:, :12] = True
    photo = (np.full((32, 32, 3), 90, np.uint8), [(0, cat, False), (1, ~cat, False)])
    dataset = PanopticDataset(write_panoptic("coco", SET.names, SET.thing, [photo] * 3), "val", SET)
    seen = []

    def dense(canvas):
        seen.append(canvas.shape)
        return np.eye(16).reshape(4, 4, 16)

    one = affinity_figures({"before": dense}, dataset, 64, 2)
    two = affinity_figures({"before": dense, "after": dense}, dataset, 64, 2)
    assert [figure.title for figure in two] == ["0000: a point of cat", "0001: a point of sky"]
    assert two[0].image.width > one[0].image.width and two[0].alt.endswith("before, after")
    assert set(seen) == {(64, 64, 3)}
