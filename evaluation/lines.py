"""A line chart as an inline <svg>: means with their ranges over the values of one setting."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

from evaluation.spread import Row, Spread

# Of Okabe and Ito, made for colour-blind readers; lines differ in their markers too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#191919")
MARKERS = ("circle", "square", "diamond")
LEFT, TOP, WIDTH, HEIGHT, BELOW, KEY = 52, 16, 400, 220, 44, 20


def chart(heading: str, found: Sequence[Row], levels: Mapping[str, float]) -> str:
    """A figure over the setting that takes the most values, a line for each combination of the others.

    levels: dashed lines across, by name: the models measured as they come.
    """
    trained = [row for row in found if row.settings and heading in row.figures]
    flag = axis([row.settings for row in trained])
    values = list(dict.fromkeys(row.settings[flag] for row in trained))
    places = _places(values)
    series: dict[str, list[tuple[float, Spread]]] = {}
    for row in trained:
        name = ", ".join(f"{f} {v}" for f, v in row.settings.items() if f != flag)
        series.setdefault(name, []).append((places[row.settings[flag]], row.figures[heading]))
    ends = [end for row in trained for end in row.figures[heading][1:]] + list(levels.values())
    low, high = min(ends), max(ends)
    low, high = (low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))

    def y(value: float) -> float:
        return TOP + HEIGHT * (high - value) / (high - low)

    parts = []
    for i in range(5):
        tick = low + (high - low) * i / 4
        parts.append(_line(LEFT, y(tick), LEFT + WIDTH, y(tick), "#d0d0d0"))
        parts.append(_text(LEFT - 6, y(tick) + 5, f"{tick:.3g}", "end"))
    for name, level in levels.items():
        parts.append(_line(LEFT, y(level), LEFT + WIDTH, y(level), "#595959", dash="6 5"))
        parts.append(_text(LEFT + WIDTH + 6, y(level) + 4, name, "start"))
    for value in values:
        parts.append(_text(LEFT + places[value] * WIDTH, TOP + HEIGHT + 18, value, "middle"))
    parts.append(_text(LEFT + WIDTH / 2, TOP + HEIGHT + 38, flag, "middle"))
    numeric = all(map(_is_number, values))
    keys = 0
    for (name, points), colour, marker in zip(series.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        at = [(LEFT + place * WIDTH, y(spread.mean), spread) for place, spread in points]
        if numeric:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in at)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for px, py, spread in at:
            parts.append(_line(px, y(spread.low), px, y(spread.high), colour, width=2))
            parts.append(_marker(marker, px, py, colour))
        if len(series) > 1:
            bottom = TOP + HEIGHT + BELOW + KEY * keys + 14
            parts += [_marker(marker, LEFT, bottom - 5, colour), _text(LEFT + 12, bottom, name, "start")]
            keys += 1
    width = LEFT + WIDTH + 24 + 8 * max(map(len, levels), default=0)
    height = TOP + HEIGHT + BELOW + KEY * keys + 8
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg {size} font-size="14" font-family="inherit" fill="#191919">{"".join(parts)}</svg>'


def axis(settings: Sequence[Mapping[str, str]]) -> str:
    """The setting that takes the most values."""
    return max(settings[0], key=lambda flag: len({each[flag] for each in settings}))


def _places(values: Sequence[str]) -> dict[str, float]:
    """Where each value stands between 0 and 1: as numbers where all are, else one beside the other."""
    if len(values) == 1:
        return {values[0]: 0.5}
    if not all(map(_is_number, values)):
        return {value: (i + 0.5) / len(values) for i, value in enumerate(values)}
    low, high = min(map(float, values)), max(map(float, values))
    return {value: 0.04 + 0.92 * (float(value) - low) / (high - low) for value in values}


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    at = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {at} stroke="{colour}" stroke-width="{width}"{dashed}/>'


def _marker(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "diamond" else ""
    return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="{colour}"{turn}/>'
