"""A self-contained HTML page of tables and figures: no script, no network, every picture inside the file.

A page is a list of sections, a section a list of parts. A table also prints on a terminal (`Table.text`).
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

from densecli.core import fs
from densecli.core.tables import markdown_table, plain, table

RANDOM_WEIGHTS = (
    "Random weights: these numbers show that the parts fit together, and say nothing about accuracy."
)
"""Warning above any number that was measured with random weights."""
_NUMBER = re.compile(r"[-+±]?[\d.,]*\s?%?|-")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of cells that are ready to be read.

    Attributes:
        title: Above the table.
        columns: The headings.
        rows: Each with one cell a column.
        note: A sentence below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def text(self) -> str:
        """The table without its title, as aligned lines for a terminal."""
        lines = table([self.columns, *self.rows])
        return f"{lines}\n{self.note}" if self.note else lines

    def markdown(self) -> str:
        """The table without its title and note, for a markdown file."""
        return markdown_table([self.columns, *self.rows])

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether all its cells are numbers."""
        columns = zip(*self.rows, strict=True)
        return [all(_NUMBER.fullmatch(cell) for cell in column) for column in columns] or [False] * len(
            self.columns
        )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with a title.

    Attributes:
        title: Above the picture.
        image: A picture, or an <svg> element of ours, which is not escaped.
        alt: What the picture shows, for readers who do not see it.
        note: A sentence below it.
        width: Width of the picture on the page, in CSS pixels; never more than its own.
        photo: Whether it shows photos, which as a JPEG take a fifth of the bytes.
    """

    title: str
    image: Image.Image | str
    alt: str
    note: str = ""
    width: int = 480
    photo: bool = False

    @property
    def source(self) -> str:
        """The picture as a data: address."""
        assert isinstance(self.image, Image.Image)
        data = io.BytesIO()
        kind = "jpeg" if self.photo else "png"
        self.image.save(data, kind, optimize=True, **({"quality": 88} if self.photo else {}))
        return f"data:image/{kind};base64," + base64.b64encode(data.getvalue()).decode()


@dataclass(frozen=True, kw_only=True)
class Section:
    """Parts below a heading.

    Attributes:
        title: The heading.
        parts: Tables and figures, side by side where there is room.
        text: Paragraphs before the parts.
        linked: Whether the top of the page has a link to it.
    """

    title: str
    parts: Sequence[Table | Figure] = ()
    text: Sequence[str] = ()
    linked: bool = True


def render_page(title: str, sections: Sequence[Section], *, summary: str = "", warning: str = "") -> str:
    """Renders a page.

    Args:
        title: Title of the page.
        sections: With links to them at the top.
        summary: One sentence below the title.
        warning: What a reader must know before any number, in a frame at the top.

    Returns:
        The HTML.
    """
    return _template().render(title=title, sections=sections, summary=summary, warning=warning)


def write_page(
    path: str | Path, title: str, sections: Sequence[Section], *, summary: str = "", warning: str = ""
) -> Path:
    """Writes `render_page` to a file, makes its folder, and returns the path."""
    path = Path(path)
    fs.write_text(path, render_page(title, sections, summary=summary, warning=warning))
    return path


@cache
def _template() -> Template:
    # Names of categories and files come from data: everything except a figure's own svg is escaped.
    escape = select_autoescape(default=True, default_for_string=True)
    environment = Environment(autoescape=escape, trim_blocks=True, lstrip_blocks=True)
    environment.filters["plain"] = plain
    return environment.from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
