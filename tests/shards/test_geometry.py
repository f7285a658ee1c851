import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from densecli.shards.geometry import Canvas

sides = st.integers(1, 3000)
sizes = st.integers(14, 1024)


@given(sizes, sides, sides)
def test_fit__longest_side_is_the_canvas_and_the_aspect_is_kept(size, width, height):
    w, h = Canvas(size).fit(width, height)
    assert max(w, h) == size
    assert min(w, h) == max(1, round(min(width, height) * size / max(width, height)))


@pytest.mark.parametrize(
    ("width", "height", "fitted"), [(640, 480, (512, 384)), (427, 640, (342, 512)), (5, 1, (512, 102))]
)
def test_fit__known_sizes(width, height, fitted):
    assert Canvas(512).fit(width, height) == fitted


@given(sizes, sides, sides, st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5))
def test_boxes__to_the_canvas_and_back(size, width, height, fractions):
    canvas = Canvas(size)
    boxes = np.array(fractions) * [width, height, width, height]
    there = canvas.to_canvas(boxes, width, height)
    assert there.dtype == np.float32
    np.testing.assert_allclose(canvas.to_image(there, width, height), boxes, rtol=1e-5, atol=1e-3)


@given(sizes, sides, sides)
def test_boxes__the_whole_photo_is_the_valid_box(size, width, height):
    canvas = Canvas(size)
    whole = canvas.to_canvas(np.array([[0, 0, width, height]]), width, height)[0]
    np.testing.assert_allclose(whole, canvas.valid_box(width, height), rtol=1e-6)
    w, h = canvas.fit(width, height)
    np.testing.assert_allclose(canvas.valid_box(width, height), [0, 0, w / size, h / size], rtol=1e-6)


def test_resize__a_box_finds_its_pixels_on_the_padded_canvas():
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[100:200, 50:150] = (255, 128, 0)
    canvas = Canvas(128)
    padded = canvas.pad(np.asarray(canvas.resize(Image.fromarray(photo))))
    x0, y0, x1, y1 = np.rint(canvas.to_canvas(np.array([[50, 100, 150, 200]]), 400, 300)[0] * 128).astype(int)
    assert (padded[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3] == (255, 128, 0)).all()
    padded[y0 - 3 : y1 + 3, x0 - 3 : x1 + 3] = 0
    assert not padded.any()


def test_resize__is_antialiased_and_not_padded():
    checks = (np.indices((256, 384)).sum(0) % 2)[..., None].repeat(3, 2) * 255
    small = np.asarray(Canvas(96).resize(Image.fromarray(checks.astype(np.uint8))))
    assert small.shape == (64, 96, 3)
    assert np.abs(small.astype(int) - 128).max() < 16


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_resize__every_mode_becomes_rgb(mode):
    assert Canvas(32).resize(Image.new(mode, (10, 20))).mode == "RGB"


def test_pad__black_to_the_right_and_below():
    padded = Canvas(8).pad(np.full((4, 6, 3), 200, np.uint8))
    assert padded.shape == (8, 8, 3)
    assert padded.dtype == np.uint8
    assert (padded[:4, :6] == 200).all()
    assert padded.sum() == 200 * 4 * 6 * 3


def test_crop__keeps_the_aspect_and_centres():
    image = np.full((96, 96, 3), 200, np.uint8)
    crop = Canvas(96).crop(image, np.array([0.25, 0.5, 0.75, 0.75]), 64)
    bright = np.argwhere(crop.min(2) > 100)
    assert crop.shape == (64, 64, 3)
    assert bright.min(0).tolist() == [16, 0] and bright.max(0).tolist() == [47, 63]


def test_crop__context_is_around_the_centre_and_ends_with_the_photo():
    # The photo covers the upper half of the canvas; every pixel says where it is.
    y, x = np.indices((32, 64))
    image = np.stack([x, y, 0 * x], 2).astype(np.uint8)
    inside = Canvas(64).crop(image, np.array([16, 8, 32, 16]) / 64, 24, context=1.5)
    assert inside[6:18].reshape(-1, 3).min(0).tolist() == [12, 6, 0]
    assert inside[6:18].reshape(-1, 3).max(0).tolist() == [35, 17, 0]
    corner = Canvas(64).crop(image, np.array([48, 16, 64, 32]) / 64, 20, context=1.5)
    assert corner.reshape(-1, 3).max(0).tolist() == [63, 31, 0]
    assert corner[:, :, 0].min() == 44


@given(sizes, sides, sides, st.tuples(*[st.floats(0, 1)] * 4))
def test_crop__any_box_has_a_pixel(size, width, height, fractions):
    canvas = Canvas(size)
    w, h = canvas.fit(width, height)
    box = np.sort(np.array(fractions).reshape(2, 2), axis=0).ravel() * [w, h, w, h] / size
    assert canvas.crop(np.full((h, w, 3), 255, np.uint8), box, 14).max() == 255
