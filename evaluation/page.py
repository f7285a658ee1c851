"""One self-contained HTML page of tables and figures: no script, no network, every picture inside.

A page is a list of sections, a section a list of parts. A table prints the same on a terminal (`Table.text`).
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, Template, select_autoescape
from PIL import Image

from densecli.core.tables import table

RANDOM = "Random weights: these numbers prove that the parts fit together, and say nothing about accuracy."
"""What stands before any number where weights were random."""
_NUMBER = re.compile(r"[-+±]?[\d.,]*\s?%?|-")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as they are to be read: `columns` are the headings, every row has as many cells.

    note: a sentence below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def text(self) -> str:
        """The table without its title, as aligned lines for a terminal."""
        lines = table([self.columns, *self.rows])
        return f"{lines}\n{self.note}" if self.note else lines

    @property
    def numeric(self) -> list[bool]:
        """For each column whether it holds nothing but numbers."""
        columns = zip(*self.rows, strict=True)
        return [all(_NUMBER.fullmatch(cell) for cell in column) for column in columns] or [False] * len(
            self.columns
        )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture, or an inline <svg> element.

    alt: what it shows, for those who do not see it. note: a sentence below it. width: of the picture on the
    page, in CSS pixels; its own where that is less.
    """

    title: str
    image: Image.Image | str
    alt: str
    note: str = ""
    width: int = 480

    @property
    def source(self) -> str:
        """The address of the picture, which holds all of it."""
        assert isinstance(self.image, Image.Image)
        data = io.BytesIO()
        self.image.save(data, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


@dataclass(frozen=True, kw_only=True)
class Section:
    """Parts below a heading, side by side where there is room. text: paragraphs before them."""

    title: str
    parts: Sequence[Table | Figure] = ()
    text: Sequence[str] = ()


def render_page(title: str, sections: Sequence[Section], *, summary: str = "", warning: str = "") -> str:
    """The page as HTML. warning: what a reader must know before any number, in a frame at the top."""
    return _template().render(title=title, sections=sections, summary=summary, warning=warning)


def write_page(
    path: str | Path, title: str, sections: Sequence[Section], *, summary: str = "", warning: str = ""
) -> Path:
    """`render_page` into a file, its folder made; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(title, sections, summary=summary, warning=warning), encoding="utf-8")
    return path


@cache
def _template() -> Template:
    # Category names come from files: everything but a figure's own svg is escaped.
    escape = select_autoescape(default=True, default_for_string=True)
    environment = Environment(autoescape=escape, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
