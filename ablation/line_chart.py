"""A line chart as an inline <svg>: means with their ranges over the values of one setting."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

from densecli.ablation.aggregate import Row, Spread

# Of Okabe and Ito, made for colour-blind readers; lines differ in their markers too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#191919")
MARKERS = ("circle", "square", "diamond")
TOP, WIDTH, HEIGHT, KEY = 16, 400, 220, 20
LETTER = 7.5
"""Width of one, about."""


def chart(heading: str, found: Sequence[Row], levels: Mapping[str, float]) -> str:
    """A figure over the setting that takes the most values, a line for each combination of the others.

    levels: by name, the models measured as they come: dashed lines across where they are near.
    """
    trained = [row for row in found if row.settings and heading in row.figures]
    flag = axis([row.settings for row in trained])
    values = list(dict.fromkeys(row.settings[flag] for row in trained))
    places = _places(values)
    series: dict[str, list[tuple[float, Spread]]] = {}
    for row in trained:
        name = ", ".join(f"{f} {v}" for f, v in row.settings.items() if f != flag)
        series.setdefault(name, []).append((places[row.settings[flag]], row.figures[heading]))
    ends = [end for row in trained for end in row.figures[heading][1:]]
    reach = max(ends) - min(ends) or 1
    # A model far from all runs would leave them no room to differ.
    near = {name: v for name, v in levels.items() if min(ends) - reach / 2 < v < max(ends) + reach / 2}
    ends += near.values()
    low, high = min(ends) - 0.05 * reach, max(ends) + 0.05 * reach
    labels = _labels(values)
    length = LETTER * max(map(len, labels))
    slant = LETTER * len("  ".join(labels)) > WIDTH
    # Slanting labels end at their value and begin to the left of it, and below.
    left = max(52.0, 0.77 * length - WIDTH * places[values[0]] + 8) if slant else 52.0
    below = 44 + (0.64 * length if slant else 0)

    def y(value: float) -> float:
        return TOP + HEIGHT * (high - value) / (high - low)

    parts = []
    for i in range(5):
        tick = low + (high - low) * i / 4
        parts.append(_line(left, y(tick), left + WIDTH, y(tick), "#d0d0d0"))
        parts.append(_text(left - 6, y(tick) + 5, f"{tick:.3g}", "end"))
    for name, level in near.items():
        parts.append(_line(left, y(level), left + WIDTH, y(level), "#595959", dash="6 5"))
        parts.append(_text(left + WIDTH + 6, y(level) + 4, name, "start"))
    for value, label in zip(values, labels, strict=True):
        x, anchor = left + places[value] * WIDTH, "end" if slant else "middle"
        parts.append(_text(x, TOP + HEIGHT + 18, label, anchor, turn=-40 if slant else 0))
    parts.append(_text(left + WIDTH / 2, TOP + HEIGHT + below - 6, flag, "middle"))
    numeric = all(map(_is_number, values))
    keys = 0
    for (name, points), colour, marker in zip(series.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        at = [(left + place * WIDTH, y(spread.mean), spread) for place, spread in points]
        if numeric:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in at)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for px, py, spread in at:
            parts.append(_line(px, y(spread.low), px, y(spread.high), colour, width=2))
            parts.append(_marker(marker, px, py, colour))
        if len(series) > 1:
            bottom = TOP + HEIGHT + below + KEY * keys + 14
            parts += [_marker(marker, left, bottom - 5, colour), _text(left + 12, bottom, name, "start")]
            keys += 1
    width = left + WIDTH + 24 + LETTER * max(map(len, near), default=0)
    height = TOP + HEIGHT + below + KEY * keys + 8
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
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


def _labels(values: Sequence[str]) -> list[str]:
    """The values without the words that all of them have."""
    shared = set.intersection(*(set(value.split()) for value in values)) if len(values) > 1 else set()
    return [" ".join(word for word in value.split() if word not in shared) or value for value in values]


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _text(x: float, y: float, text: str, anchor: str, *, turn: int = 0) -> str:
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    at = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {at} stroke="{colour}" stroke-width="{width}"{dashed}/>'


def _marker(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if kind == "diamond" else ""
    return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="{colour}"{turn}/>'
