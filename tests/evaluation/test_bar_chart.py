import xml.etree.ElementTree as ElementTree

import pytest

from densecli.evaluation.bar_chart import bars

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*args, **more):
    svg = bars(*args, **more).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return ElementTree.fromstring(svg)


def test_bars__are_as_long_as_their_values_and_say_them():
    svg = drawn({"before": [25, None], "after": [50, 100]}, ["Boxes", "Masks"])
    # The legend's squares come first.
    a, b, c, d = (float(rect.get("width")) for rect in svg.findall(f"{SVG}rect")[2:])
    assert b == pytest.approx(2 * a) and c == 0 and d == pytest.approx(4 * a)
    texts = [text.text for text in svg.findall(f"{SVG}text")]
    assert {"before", "after", "Boxes", "Masks", "25.0", "50.0", "-", "100.0"} <= set(texts)
    assert max(float(text.get("x")) for text in svg.findall(f"{SVG}text")) < float(svg.get("width")) - 40


def test_bars__names_with_markup_are_text():
    assert "a<b" in [text.text for text in drawn({"a<b": [1]}, ["&"]).findall(f"{SVG}text")]
