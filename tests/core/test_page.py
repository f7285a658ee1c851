"""A page holds everything it shows, says it in words too, and escapes what came from outside."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from densecli.core.page import Figure, Section, Table, render_page, write_page

RED = Image.new("RGB", (40, 20), (200, 30, 30))
SVG = '<svg viewBox="0 0 10 10" width="10"><rect width="10" height="10"/></svg>'


class Elements(HTMLParser):
    """Every element's name with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page(*parts, **more) -> Elements:
    return Elements(render_page("T", [Section(title="S", parts=parts)], **more))


def test_page__pictures_are_inside_and_described():
    found = page(
        Figure(title="red", image=RED, alt="a red field"), Figure(title="", image=SVG, alt="a square")
    )
    (image,) = found.named("img")
    data = image["src"].removeprefix("data:image/png;base64,")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), np.asarray(RED))
    assert image["alt"] == "a red field"
    assert [a["aria-label"] for _, a in found.found if a.get("role") == "img"] == ["a square"]
    assert len(found.named("svg")) == 1


def test_page__asks_nobody_for_anything():
    html = render_page(
        "T", [Section(title="S", parts=[Figure(title="", image=RED, alt="red")])], warning="Careful"
    )
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)|@import", html)
    assert all(a.startswith(("data:", "#")) for a, _ in addresses) and "<script" not in html
    assert "http" not in html


def test_page__a_name_with_markup_is_text():
    evil = "<img src=x onerror=alert(1)>"
    found = page(Table(title=evil, columns=["name", evil], rows=[[evil, "1"]]), summary=evil, warning=evil)
    assert not found.named("img") and found.text.count(evil) == 5


def test_table__numbers_are_to_the_right_and_names_to_the_left():
    columns = ["class", "top-1", "change", "called"]
    made = Table(title="", columns=columns, rows=[["cat", "44.3", "+29.1", "dog"], ["sky", "-", "-3.0", "-"]])
    assert made.numeric == [False, True, True, False]
    cells = page(made).named("td")
    assert [cell.get("class") for cell in cells[:4]] == [None, "number", "number", None]


def test_table__without_rows_has_its_headings():
    found = page(Table(title="t", columns=["a", "b"], rows=[]))
    assert len(found.named("th")) == 2 and not found.named("td")


def test_table__prints_its_note_below():
    assert Table(title="t", columns=["a"], rows=[["x"]], note="So it is.").text().splitlines() == [
        "a",
        "-",
        "x",
        "So it is.",
    ]


def test_page__a_browser_draws_it(tmp_path: Path, screenshot):
    figure = Figure(title="", image=RED.resize((400, 200)), alt="red")
    written = write_page(tmp_path / "report" / "index.html", "T", [Section(title="S", parts=[figure])])
    red = (screenshot(written) == (200, 30, 30)).all(2)
    assert red.sum() == 400 * 200
