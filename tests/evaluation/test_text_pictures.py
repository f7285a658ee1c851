"""Segmentations and heat maps show the photo's own tokens, each in the colour of its category."""

import numpy as np
import pytest

from densecli.evaluation.text_pictures import (
    COLOURS,
    OTHER,
    TINT,
    Scene,
    heat_picture,
    overlay,
    segmentation_picture,
)
from densecli.shards.geometry import Canvas

GREY = np.full((32, 64, 3), 100, np.uint8)


def scene(**models) -> Scene:
    """A wide photo on a canvas of 4 x 4 tokens, of which the lower half is padding."""
    cosines = {}
    for title, labels in models.items():
        grid = np.full((4, 4), 3)
        grid[:2] = labels
        cosines[title] = np.eye(4, dtype=np.float32)[grid].transpose(2, 0, 1)
    return Scene(image=GREY, canvas=Canvas(64), names=["sky", "car", "tree", "padding"], cosines=cosines)


def mixed(colour) -> np.ndarray:
    return 100 + TINT * (np.array(colour) - 100)


def test_scene__padding_is_not_present():
    found = scene(a=[[0, 0, 0, 1], [0, 0, 0, 1]], b=[[1, 1, 1, 1], [1, 1, 1, 2]])
    np.testing.assert_allclose(found.shares("a"), [0.75, 0.25, 0, 0])
    assert found.present() == [1, 0, 2]
    annotated = np.array([[2, 2], [2, -1]])
    assert found.present(annotated) == [2, 1, 0]


def test_labels__are_enlarged_to_the_photo():
    labels = scene(a=[[0, 0, 1, 1], [0, 0, 1, 1]]).labels("a", 80)
    assert labels.shape == (40, 80)
    assert (labels[:25, :35] == 0).all() and (labels[:25, 45:] == 1).all()


def test_overlay__colours_others_and_pixels_without_a_label():
    labels = np.array([[0, 2, -1, 7]]).repeat(4, 0).repeat(4, 1)
    picture = np.asarray(overlay(GREY, labels, {0: COLOURS[0], 2: COLOURS[1]})).astype(int)
    assert picture.shape == (4, 16, 3)
    for column, colour in ((1, COLOURS[0]), (5, COLOURS[1]), (13, OTHER)):
        np.testing.assert_allclose(picture[1, column], mixed(colour), atol=1)
    np.testing.assert_array_equal(picture[1, 9], [100] * 3)


def test_overlay__nothing_labelled():
    np.testing.assert_array_equal(np.asarray(overlay(GREY, np.full((32, 64), -1), {0: COLOURS[0]})), GREY)


def test_segmentation_picture__annotations_stand_below_with_the_same_colours():
    found = scene(a=[[0, 0, 1, 1], [0, 0, 1, 1]], b=[[0, 0, 0, 0], [0, 0, 0, 0]])
    annotated = np.full((320, 640), -1, np.int16)
    annotated[:, :320] = 1
    with_truth = np.asarray(segmentation_picture(found, 170, annotated)).astype(int)
    without = np.asarray(segmentation_picture(found, 170)).astype(int)
    assert with_truth.shape[1] == without.shape[1] == 350
    assert with_truth.shape[0] > without.shape[0] + 85
    truth = with_truth[without.shape[0] - 2 * 24 : without.shape[0] - 2 * 24 + 115]
    car = np.abs(truth - mixed(COLOURS[1])).max(2) <= 1
    plain = (truth == 100).all(2)
    assert car.sum() == plain.sum() == 85 * 85


@pytest.mark.parametrize("name", ["<script>", "x" * 500, "a\nb"])
def test_heat_picture__a_row_for_each_category_as_wide_as_two_panels(name):
    found = scene(a=[[0, 0, 1, 1], [0, 0, 1, 1]], b=[[0, 0, 0, 0], [0, 0, 0, 0]])
    found.names[0] = name
    one, two = heat_picture(found, [0], 170), heat_picture(found, [0, 1], 170)
    assert one.width == two.width == 350 and two.height > one.height + 110
