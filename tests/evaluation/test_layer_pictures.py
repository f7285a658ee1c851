"""What the layers of a model do with a photo: the rows of its attention for the tokens below the points."""

import numpy as np
import pytest
import torch

from densecli.evaluation.layer_pictures import attention_picture, correlation_picture, read_layers
from densecli.evaluation.proxy_tokens import proxy_score
from densecli.models.student import load_student
from densecli.shards.geometry import Canvas

CANVAS = Canvas(96)
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def student():
    return load_student("scenes-s")[0]


@torch.no_grad()
def walked(student):
    pixels = torch.from_numpy(CANVAS.pad(IMAGE)).permute(2, 0, 1)[None]
    return list(student.walk(student.prepare(pixels)))


def test_read_layers__attention_of_cls_and_of_the_token_below_the_point(student):
    reading = read_layers(student, IMAGE, CANVAS, {"p": (0.99, 0.99)}, [2])
    attention = walked(student)[1].attention[0, :, 1:].unflatten(1, (8, 8)).numpy()
    # The lower right corner of the photo is in row 3 of 8: the canvas is padded below.
    expected = {"[CLS]": attention[0], "p": attention[1 + 3 * 8 + 7]}
    assert reading.queries == ["[CLS]", "p"] and list(reading.maps) == [2]
    for name, rows in expected.items():
        np.testing.assert_allclose(reading.maps[2].attention[name], rows, rtol=1e-5)


def test_read_layers__proxy_scores_are_of_the_photo_without_its_padding(student):
    reading = read_layers(student, IMAGE, CANVAS, {}, [1])
    seen = torch.arange(64) < 32
    expected = [proxy_score(layer.attention[0, 1:, 1:], seen) for layer in walked(student)]
    np.testing.assert_allclose(reading.proxy_scores, expected, rtol=1e-5)


def test_pictures__a_row_for_each_layer_and_one_for_the_dense_map(student):
    readings = {
        name: read_layers(student, IMAGE, CANVAS, {"p": (0.5, 0.5)}, [1, 4]) for name in ("before", "after")
    }
    dense = {name: np.random.default_rng(1).normal(size=(8, 8, 5)) for name in readings}
    attention = attention_picture(readings, IMAGE, CANVAS, "[CLS]", 170)
    correlation = correlation_picture(readings, dense, IMAGE, CANVAS, (0.5, 0.5), 170)
    alone = correlation_picture({}, dense, IMAGE, CANVAS, (0.5, 0.5), 170)
    assert attention.width == correlation.width == alone.width == 350
    assert correlation.height == attention.height + 10 + alone.height
