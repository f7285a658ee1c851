"""The affinity picture: the right token and the right cosines."""

import numpy as np
import pytest

from densecli.models.affinity import affinity, affinity_panel, point_panel, token_at
from densecli.shards.geometry import Canvas


def test_affinity__is_the_cosine_to_the_chosen_token():
    factors = np.random.default_rng(0).normal(size=(3, 4, 5))
    cosines = affinity(factors, (2, 1))
    assert cosines[2, 1] == pytest.approx(1)
    a, b = factors[0, 3], factors[2, 1]
    assert cosines[0, 3] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("point", "valid", "token"),
    [
        ((0, 0), (1, 1), (0, 0)),
        ((1, 1), (1, 1), (7, 7)),
        ((1, 1), (1, 0.5), (4, 7)),
        ((0.6, 0.1), (0.5, 1), (0, 2)),
    ],
)
def test_token_at__lies_below_the_point_of_the_photo(point, valid, token):
    assert token_at(point, valid, (8, 8)) == token


def test_affinity_panel__like_tokens_are_yellow_and_others_blue():
    factors = np.zeros((4, 4, 2))
    factors[:, :2, 0] = 1
    factors[:, 2:, 1] = 1
    picture = np.asarray(affinity_panel(np.full((64, 64, 3), 128, np.uint8), factors, (0.1, 0.9), Canvas(64)))
    left, right = picture[100, 100].astype(int), picture[100, 380].astype(int)
    assert left[0] > left[2] + 50 and right[2] > right[0] + 20


@pytest.mark.parametrize(
    ("size", "high"), [((64, 64), 240), ((1, 64), 4), ((64, 1), 480), ((64, 16), 480), ((1, 2048), 1)]
)
def test_panels__of_photos_of_any_shape_are_as_wide_and_at_most_twice_as_high(size, high):
    image = np.full((*size, 3), 128, np.uint8)
    tokens = np.random.default_rng(0).normal(size=(4, 4, 2))
    for panel in (
        point_panel(image, (0.5, 0.5), 240),
        affinity_panel(image, tokens, (0.5, 0.5), Canvas(max(size)), 240),
    ):
        assert panel.size == (240, high + 26)
