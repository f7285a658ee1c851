"""A bar chart as an inline <svg>: one group of bars a figure, one bar a result."""

from collections.abc import Mapping, Sequence
from html import escape

# From the palette of Okabe and Ito, made for colour-blind readers; they differ in lightness as well.
COLOURS = ("#0072b2", "#e69f00", "#9fcbe8", "#f7dda0")
_LEFT, _BAR, _GAP, _WIDTH, _LEGEND = 130, 18, 14, 420, 30


def bars(results: Mapping[str, Sequence[float | None]], figures: Sequence[str], most: float = 100) -> str:
    """Horizontal bars of up to four results, each with a value for each of `figures`, from 0 to `most`.

    The values are written at the bars' ends; a figure without a value has "-".
    """
    group = _BAR * len(results) + _GAP
    height = _LEGEND + group * len(figures)
    parts = []
    x = _LEFT
    for name, colour in zip(results, COLOURS, strict=False):
        parts.append(f'<rect x="{x}" y="4" width="14" height="14" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="16">{escape(name)}</text>')
        x += 44 + 8 * len(name)
    for i, figure in enumerate(figures):
        top = _LEGEND + i * group
        middle = top + _BAR * len(results) / 2 + 5
        parts.append(f'<text x="{_LEFT - 8}" y="{middle:.1f}" text-anchor="end">{escape(figure)}</text>')
        for j, (values, colour) in enumerate(zip(results.values(), COLOURS, strict=False)):
            value, y = values[i], top + j * _BAR
            length = _WIDTH * (value or 0) / most
            parts.append(
                f'<rect x="{_LEFT}" y="{y + 1}" width="{length:.1f}" height="{_BAR - 2}" fill="{colour}"/>'
            )
            said = "-" if value is None else f"{value:.1f}"
            parts.append(f'<text x="{_LEFT + length + 6:.1f}" y="{y + 14}">{said}</text>')
    line = f'<line x1="{_LEFT}" y1="{_LEGEND - 4}" x2="{_LEFT}" y2="{height - _GAP + 4}" stroke="#191919"/>'
    size = f'width="{_LEFT + _WIDTH + 60}" height="{height}" viewBox="0 0 {_LEFT + _WIDTH + 60} {height}"'
    return f'<svg {size} font-size="14" font-family="inherit" fill="#191919">{"".join(parts)}{line}</svg>'
