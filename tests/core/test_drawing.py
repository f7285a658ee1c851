"""Drawing helpers: panels side by side, text that stays in its place, a scale that grows lighter."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from densecli.core import drawing
from densecli.core.drawing import STUFF, THING


def field(width: int, height: int, colour: tuple[int, int, int] = (9, 9, 9)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def test_heat_colours__grow_lighter() -> None:
    scale = drawing.heat_colours(np.linspace(0, 1, 50)[None])[0]
    assert (np.diff(scale.astype(float) @ [0.299, 0.587, 0.114]) > 0).all()


def test_thing_and_stuff__the_palette_survives_missing_red_or_green() -> None:
    # Without red or without green, what is left still separates the two kinds, and so does their lightness.
    for seen in ((0, 2), (1, 2)):
        assert max(abs(THING[c] - STUFF[c]) for c in seen) > 100
    weights = np.array([0.299, 0.587, 0.114])
    assert abs(weights @ THING - weights @ STUFF) > 50


def test_side_by_side__each_panel_below_its_title() -> None:
    row = drawing.side_by_side({"a": field(50, 40), "b": field(70, 90)})
    assert row.width >= 120 and row.height > 90


def test_column__one_below_the_other() -> None:
    picture = np.asarray(drawing.column([field(4, 3), field(6, 5)], gap=2))
    assert picture.shape == (10, 6, 3)
    assert (picture[:3, :4] == 9).all() and (picture[3:5] == 255).all() and (picture[5:] == 9).all()


@pytest.mark.parametrize("title", ["x" * 10_000, "word " * 2_000, "\x1b[31mred\nand more", ""])
def test_titles__hostile_ones_do_not_widen_the_picture(title: str) -> None:
    for picture in (drawing.titled(title, field(200, 10)), drawing.framed(title, field(200, 10))):
        assert picture.width <= 220 and picture.height < 400


def test_fit_text__the_largest_type_that_fits_all() -> None:
    words = [[["kite"]], [["a", "long", "name"]]]
    assert drawing.fit_text(words, [(200, 100)] * 2, (22, 12)) == (["kite", "a long name"], 22)
    texts, size = drawing.fit_text(words, [(200, 100), (60, 100)], (60, 12))
    assert size == 12 and max(texts[1].split("\n"), key=len) in ("a long", "long name", "a long name")


def test_shorten__fits_and_says_that_something_is_missing() -> None:
    font = ImageFont.load_default(12)
    short = drawing.shorten("building-other-merged", font, 50)
    assert short.endswith("…") and font.getlength(short) <= 50
    assert drawing.shorten("cat", font, 50) == "cat"
