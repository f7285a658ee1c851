"""Pictures of predictions: colours, legends, boxes, and shapes at the limits."""

import numpy as np
import pytest
from PIL import Image

from densecli.evaluation.prediction_pictures import (
    COLOURS,
    DRAWN,
    draw_boxes,
    draw_heat,
    draw_segmentation,
    legend,
    palette,
    pictures_of,
)
from densecli.models.prediction import NamedRegion, Prediction
from densecli.shards.geometry import Canvas


def prediction(names=("a", "b", "c"), labels=None, *, width=128, height=64, regions=()) -> Prediction:
    h, w = Canvas(64).fit(width, height)[::-1]
    labels = np.zeros((h, w), np.int16) if labels is None else labels
    return Prediction(
        names=tuple(names),
        width=width,
        height=height,
        image=np.full((h, w, 3), 128, np.uint8),
        labels=labels,
        regions=tuple(regions),
        cosines=np.linspace(-1, 1, len(names) * 16, dtype=np.float32).reshape(len(names), 4, 4),
        canvas=Canvas(64),
    )


def halves() -> np.ndarray:
    labels = np.zeros((32, 64), np.int16)
    labels[:, 32:] = 1
    return labels


def test_palette__of_few_names_is_the_same_in_every_photo() -> None:
    assert palette(prediction()) == palette(prediction(labels=halves()[:, ::-1].copy()))


def test_palette__of_many_names_goes_to_those_that_cover_most() -> None:
    names = [f"name {i}" for i in range(30)]
    labels = np.full((32, 64), 29, np.int16)
    labels[:4] = 17
    regions = [NamedRegion(box=(0, 0, 9, 9), name="name 3", probability=1.0, cosine=0.3)]
    found = palette(prediction(names, labels, regions=regions))
    assert list(found) == [29, 17, 3] and list(found.values()) == list(COLOURS[:3])


def test_segmentation__has_the_colour_of_the_name_over_its_pixels() -> None:
    drawn = np.asarray(draw_segmentation(prediction(labels=halves()), 256)).astype(int)
    # Grey 128 under 60 % of the colour; far from the names and from the line between them.
    for x, colour in ((40, COLOURS[0]), (220, COLOURS[1])):
        expected = 0.4 * 128 + 0.6 * np.array(colour)
        assert np.abs(drawn[10, x] - expected).max() <= 2
    assert drawn.shape[1] == 280 and drawn.shape[0] > 128


def test_segmentation__pixels_without_a_name_are_grey_and_in_the_legend() -> None:
    labels = halves()
    labels[:, 32:] = -1
    drawn = np.asarray(draw_segmentation(prediction(labels=labels), 256)).astype(int)
    assert len(set(drawn[10, 220])) == 1
    alone = np.asarray(draw_segmentation(prediction(), 256))
    assert drawn.shape[0] >= alone.shape[0]


def test_boxes__are_where_they_are_and_the_least_probable_left_out() -> None:
    box = NamedRegion(box=(32, 16, 96, 60), name="b", probability=0.9, cosine=0.3)
    drawn = np.asarray(draw_boxes(prediction(regions=[box]), 256))
    assert tuple(drawn[60, 66]) == COLOURS[1] and tuple(drawn[60, 190]) == COLOURS[1]
    assert tuple(drawn[60, 128]) == (128, 128, 128)
    # The only other box lies in a corner, and is the least probable.
    corner = NamedRegion(box=(100, 40, 128, 64), name="c", probability=0.1, cosine=0.1)
    many = np.asarray(draw_boxes(prediction(regions=[box] * DRAWN + [corner]), 256))
    assert tuple(many[126, 230]) == (128, 128, 128)
    assert many.shape[0] > drawn.shape[0]


def test_heat__runs_from_dark_to_bright() -> None:
    drawn = np.asarray(draw_heat(prediction(), "b", 256).convert("L")).astype(int)
    assert drawn[120, 250] > drawn[4, 4]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (4000, 3), (3, 4000)])
def test_pictures__of_photos_of_any_shape(width: int, height: int) -> None:
    region = NamedRegion(box=(0, 0, width, height), name="a", probability=1.0, cosine=1.0)
    drawn = pictures_of(prediction(width=width, height=height, regions=[region]), ["a"], 256)
    assert list(drawn) == ["segmentation", "boxes", "heat-a"]
    assert all(isinstance(each, Image.Image) and each.width >= 280 for each in drawn.values())


def test_legend__long_and_hostile_names_stay_within_it() -> None:
    rows = [((0, 0, 0), "a\x1b[31m" + "very " * 40, "100%"), ((255, 255, 255), "", "")]
    assert legend(rows, 300).width == 300
    assert legend([], 300).size == (300, 1)
