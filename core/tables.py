"""Tables in print, and figures that people read."""

from collections.abc import Sequence

_UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, headings first, as aligned lines: the first column to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def size(count: float) -> str:
    """A number of bytes: 67.6 KB, in powers of 1,000."""
    power = 0
    while count >= 999.95 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.1f} {_UNITS[power]}" if power else f"{count:.0f} {_UNITS[0]}"
