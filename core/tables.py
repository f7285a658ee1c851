"""Tables for terminals, markdown and CSV files, and text that is safe in all of them.

Names of categories, files and runs come from data. Whatever they hold, a cell stays one cell, a terminal
receives no control characters, and a spreadsheet computes nothing.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence

NAME_LIMIT, CELL_LIMIT = 80, 240
_UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")
# Colours, cursor movements, window titles and the like, whole.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
# Joiners that Persian, Hindi and some emoji are written with.
_JOINERS = "\u200c\u200d"
# How a text begins that a spreadsheet takes for a formula; the wide ones count in East Asian ones.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_MARKDOWN = re.compile(r"([\\`*|\[\]<>~])")


def plain(text: str, limit: int = NAME_LIMIT) -> str:
    """A text from data as one harmless line.

    Args:
        text: Anything, such as a category or file name.
        limit: Characters that the result has at most; a longer text ends in an ellipsis.

    Returns:
        The text without terminal sequences, each white space a blank, other unprintable characters as "�".
    """
    # Cut first, so that a text of megabytes costs nothing.
    found = _ANSI.sub("", text[: 8 * limit])
    found = "".join(
        char if char.isprintable() or char in _JOINERS else " " if char.isspace() else "�" for char in found
    )
    return found if len(found) <= limit else f"{found[: limit - 1]}…"


def readable(name: str) -> str:
    """A file name as text. Bytes in it that are not UTF-8, as old archives have, are written as \\xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """A text for a terminal, whatever names are in it: each of its lines as `plain` makes it, uncut."""
    return "\n".join(plain(line, max(len(line), 1)) for line in text.split("\n"))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, headings first, as aligned lines: the first column to the left, the others right."""
    rows = [[plain(cell, CELL_LIMIT) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, headings first, as a GitHub-flavoured markdown table."""
    cells = [[_MARKDOWN.sub(r"\\\1", plain(cell, CELL_LIMIT)) for cell in row] for row in rows]
    lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def csv_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows by column name as CSV; the columns come in the order in which the rows first name them."""
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_csv_cell(name) for name in names])
    writer.writerows([_csv_cell(row.get(name, "")) for name in names] for row in rows)
    return text.getvalue()


def csv_text(cell: str) -> str:
    """The text that `csv_table` wrote: without the quote that it puts before a formula."""
    return cell[1:] if cell[:1] == "'" and cell[1:].lstrip()[:1] in _FORMULA else cell


def _csv_cell(value: object) -> object:
    """Puts a quote before a text that a spreadsheet would take for a formula (OWASP); numbers stay."""
    if not isinstance(value, str):
        return value
    text = plain(value, max(len(value), 1))
    return f"'{text}" if text.lstrip()[:1] in _FORMULA and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def size(count: float) -> str:
    """A number of bytes: 67.6 KB, in powers of 1,000."""
    power = 0
    while count >= 999.95 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.1f} {_UNITS[power]}" if power else f"{count:.0f} {_UNITS[0]}"


def counted(count: int, noun: str) -> str:
    """A number of things: 1 shard, 2 shards."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
