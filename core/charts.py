"""Charts as inline SVG, drawn by matplotlib: bars of several results, and means with ranges over a setting.

Text and axes take the page's own colour, so that a chart is legible on light and on dark paper; it is narrow
enough for a phone. The same values give the same bytes. matplotlib is imported when a chart is drawn.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from densecli.core.tables import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 420
"""Pixels of every chart."""
# From the palette of Okabe and Ito, made for colour-blind readers; bars differ in lightness as well.
BAR_COLOURS = ("#0072b2", "#e69f00", "#9fcbe8", "#f7dda0")
LINE_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
MARKERS = "osD^v"
# Stand-ins that become the page's colours in `_svg`.
_INK, _LINE = "#191919", "#d0d0d0"
_LETTER = 7.5  # pixels, about
# Any: matplotlib types the keys as a union of literals.
_SETTINGS: Any = {
    "font.size": 13,
    "svg.fonttype": "none",
    "svg.hashsalt": "densecli",
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _LINE,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_UNUSED_IDS = re.compile(r' id="[A-Za-z0-9.]+_\d+"')
_FONT = re.compile(r"font-family: [^;\"]*")
_NAMESPACES = re.compile(r' (xmlns(:xlink)?|version)="[^"]*"')


class Measured(NamedTuple):
    """A point of a chart: a value of the setting as text, and the mean, lowest and highest of its runs."""

    setting: str
    mean: float
    low: float
    high: float


class Curve(NamedTuple):
    """A curve with its band.

    Attributes:
        x: Ascending.
        y: The curve.
        low: Lower end of the band.
        high: Upper end.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def bar_chart(results: Mapping[str, Sequence[float | None]], figures: Sequence[str]) -> str:
    """Horizontal bars from 0 to 100 percent, with their values at their ends.

    Args:
        results: Up to four, by name, each with a value in percent for every figure; None is shown as "-".
        figures: What the values are, from top to bottom.

    Returns:
        An <svg> element.
    """
    with drawn_with(_SETTINGS):
        bar = 0.8 / len(results)
        height = 40 + 20 * math.ceil(len(results) / 2) + len(figures) * (20 * len(results) + 12)
        figure, axes = _axes(height)
        for i, ((name, values), colour) in enumerate(zip(results.items(), BAR_COLOURS, strict=False)):
            places = [n + bar * (i - (len(results) - 1) / 2) for n in range(len(figures))]
            drawn = axes.barh(
                places, [value or 0 for value in values], bar * 0.92, color=colour, label=plain(name, 40)
            )
            axes.bar_label(drawn, ["-" if value is None else f"{value:.1f}" for value in values], padding=4)
        axes.set_yticks(range(len(figures)), [plain(name, 24) for name in figures])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 112)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_xlabel("percent")
        axes.invert_yaxis()
        figure.legend(loc="outside upper left", ncols=2, handlelength=1)
        return _svg(figure)


def line_chart(
    series: Mapping[str, Sequence[Measured]],
    *,
    x_label: str,
    y_label: str,
    full_scale: float,
    levels: Mapping[str, float],
) -> str:
    """Means over the values of a setting, with bars from the lowest to the highest run.

    Values that are all numbers are connected and stand where the numbers lie, on a logarithmic axis where
    they span more than a factor of 30; others stand side by side. The vertical axis spans at least a tenth of
    the full scale (a twentieth where ranges are known) and four times the widest range: what chance alone
    does looks flat.

    Args:
        series: Points by the name of their line, which the legend shows where there are several.
        x_label: The setting.
        y_label: The figure and its unit.
        full_scale: The largest value that the figure can have: 100 for percent.
        levels: Values by name, drawn as dashed lines. One that the vertical axis does not reach is named with
            its value and an arrow at the edge beyond which it lies.

    Returns:
        An <svg> element.
    """
    points = [point for line in series.values() for point in line]
    values = list(dict.fromkeys(point.setting for point in points))
    places, numeric = _places(values)
    low, high = _limits(points, full_scale)
    labels = _tick_labels(values)
    slanted = _LETTER * sum(len(label) + 2 for label in labels) > WIDTH - 80
    with drawn_with(_SETTINGS):
        below = _LETTER * 0.64 * max(map(len, labels)) if slanted else 0
        figure, axes = _axes(250 + below + (18 * len(series) + 8 if len(series) > 1 else 0))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        styles = zip(cycle(LINE_COLOURS), cycle(MARKERS))
        for i, ((name, line), (colour, marker)) in enumerate(zip(series.items(), styles, strict=False)):
            # Side by side, so that no bar hides another.
            shift = 0.014 * (i - (len(series) - 1) / 2)
            axes.errorbar(
                [places[point.setting] + shift for point in line],
                [point.mean for point in line],
                [[p.mean - p.low for p in line], [p.high - p.mean for p in line]],
                fmt=f"{marker}-" if numeric else marker,
                color=colour,
                linewidth=1.6,
                elinewidth=2,
                capsize=3,
                markersize=6,
                label=plain(name, 48),
            )
        beyond: dict[bool, list[str]] = {True: [], False: []}
        for name, level in levels.items():
            if not low < level < high:
                above = level >= high
                beyond[above].append(f"{'↑' if above else '↓'} {plain(name, 32)}: {level:.4g}")
            else:
                axes.axhline(level, color=_INK, linewidth=1, linestyle="--")
                axes.annotate(
                    plain(name, 40),
                    (1, level),
                    (-2, 3),
                    ("axes fraction", "data"),
                    "offset points",
                    ha="right",
                )
        for above, names in beyond.items():
            if names:
                edge, shift, side = (1, -3, "top") if above else (0, 3, "bottom")
                axes.annotate(
                    "\n".join(names),
                    (1, edge),
                    (-2, shift),
                    "axes fraction",
                    "offset points",
                    ha="right",
                    va=side,
                    fontsize=11,
                )
        axes.set_ylim(low, high)
        axes.set_xlim(-0.06, 1.06)
        axes.set_xticks([places[value] for value in values], labels)
        if slanted:
            axes.tick_params(axis="x", labelrotation=40)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_xlabel(plain(x_label, 48))
        axes.set_title(plain(y_label, 48), loc="left", fontsize=13)
        if len(series) > 1:
            figure.legend(loc="outside lower left", ncols=1)
        return _svg(figure)


def curve_chart(points: Sequence[Measured], curve: Curve | None, *, x_label: str, y_label: str) -> str:
    """Means over a number on a logarithmic axis, with a curve through them that goes on beyond.

    Args:
        points: With bars from the lowest to the highest run; their settings are numbers above 0.
        curve: Solid as far as there are points, then dashed; its last point, an estimate, is drawn hollow,
            with the band as its bar. None for points alone.
        x_label: The number.
        y_label: The figure and its unit.

    Returns:
        An <svg> element.
    """
    from matplotlib.ticker import NullFormatter, NullLocator

    places = [float(point.setting) for point in points]
    with drawn_with(_SETTINGS):
        ticks = [*places, *(curve.x[-1:] if curve else ())]
        labels = [f"{tick:,.0f}" for tick in ticks]
        figure, axes = _axes(290 + _LETTER * 0.64 * max(map(len, labels)))
        axes.set_xscale("log")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        measured, estimate = LINE_COLOURS[0], LINE_COLOURS[5]
        if curve:
            axes.fill_between(curve.x, curve.low, curve.high, color=measured, alpha=0.18, linewidth=0)
            within = sum(x <= max(places) for x in curve.x)
            axes.plot(curve.x[:within], curve.y[:within], color=measured, linewidth=1.6)
            axes.plot(
                curve.x[max(within - 1, 0) :],
                curve.y[max(within - 1, 0) :],
                color=measured,
                linewidth=1.6,
                linestyle="--",
            )
            last = curve.y[-1]
            axes.errorbar(
                curve.x[-1:],
                [last],
                [[last - curve.low[-1]], [curve.high[-1] - last]],
                fmt="D",
                color=estimate,
                markerfacecolor="none",
                markersize=7,
                elinewidth=2,
                capsize=3,
                label="extrapolated",
            )
        axes.errorbar(
            places,
            [point.mean for point in points],
            [[p.mean - p.low for p in points], [p.high - p.mean for p in points]],
            fmt="o",
            color=measured,
            markersize=6,
            elinewidth=2,
            capsize=3,
            label="measured",
        )
        axes.set_xticks(ticks, labels, rotation=40, ha="right", rotation_mode="anchor")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(plain(x_label, 48))
        axes.set_title(plain(y_label, 48), loc="left", fontsize=13)
        if curve:
            figure.legend(loc="outside lower left", ncols=2)
        return _svg(figure)


def history_chart(curve: Curve, *, y_label: str, full_scale: float, marked: float | None = None) -> str:
    """A value over the steps of a training, with the band within which it varies from step to step.

    The vertical axis holds curve and band, and spans at least a tenth of the full scale (a twentieth where
    there is a band) and four times the usual width of the band: what chance alone does looks flat.

    Args:
        curve: The curve. Its points are shown where there are few of them.
        y_label: The value and its unit.
        full_scale: The largest value that it can have: 100 for percent; else the largest that it had.
        marked: The x of a point to mark with a line.

    Returns:
        An <svg> element.
    """
    low, high = _history_limits(curve, full_scale)
    with drawn_with(_SETTINGS):
        figure, axes = _axes(230)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        colour = LINE_COLOURS[0]
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            curve.x, curve.y, "o-" if len(curve.x) <= 25 else "-", color=colour, linewidth=1.6, markersize=5
        )
        if marked is not None:
            axes.axvline(marked, color=_INK, linewidth=1, linestyle="--")
        axes.set_ylim(low, high)
        axes.locator_params(axis="x", nbins=6, integer=True)
        axes.set_xlabel("step")
        axes.set_title(plain(y_label, 48), loc="left", fontsize=13)
        return _svg(figure)


def _history_limits(curve: Curve, full_scale: float) -> tuple[float, float]:
    lowest, highest = min(curve.low), max(curve.high)
    width = median(high - low for low, high in zip(curve.low, curve.high, strict=True))
    least = max(4 * width, full_scale / (20 if width else 10))
    span = max(1.15 * (highest - lowest), least) or 1.0
    low = (lowest + highest - span) / 2
    low = max(low, 0.0) if lowest >= 0 else low
    return low, low + span


@contextmanager
def drawn_with(settings: Any) -> Iterator[None]:
    """matplotlib's settings while a chart is drawn whose names come from data.

    A dollar sign is no formula then, and a letter that the font lacks is no warning.
    """
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False, **settings}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _axes(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    # At 72 dots an inch a point is a pixel.
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    """The figure as an element that can stand in a page: no header, the page's colours and font."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg, count=2)
    # In a page, ids are everybody's and namespaces are known.
    svg = _NAMESPACES.sub("", _UNUSED_IDS.sub("", svg)).replace("xlink:href", "href")
    svg = _FONT.sub("font-family: inherit", svg)
    # matplotlib leaves black text without a colour.
    svg = svg.replace("<svg ", '<svg fill="currentColor" ', 1)
    return svg.replace(_INK, "currentColor").replace(_LINE, f"var(--line, {_LINE})").strip()


def _limits(points: Sequence[Measured], full_scale: float) -> tuple[float, float]:
    lowest, highest = min(point.low for point in points), max(point.high for point in points)
    widest = max(point.high - point.low for point in points)
    least = max(4 * widest, full_scale / (20 if widest else 10))
    span = max(1.15 * (highest - lowest), least)
    low = max((lowest + highest - span) / 2, 0.0) if lowest >= 0 else (lowest + highest - span) / 2
    return low, low + span


def _places(values: Sequence[str]) -> tuple[dict[str, float], bool]:
    """Where each value stands between 0 and 1, and whether they all are numbers."""
    numbers = {value: number for value in values if math.isfinite(number := _number(value))}
    if len(numbers) < len(values):
        return {value: (i + 0.5) / len(values) for i, value in enumerate(values)}, False
    if min(numbers.values()) > 0 and max(numbers.values()) > 30 * min(numbers.values()):
        numbers = {value: math.log(number) for value, number in numbers.items()}
    low, high = min(numbers.values()), max(numbers.values())
    return {value: (n - low) / (high - low) if high > low else 0.5 for value, n in numbers.items()}, True


def _tick_labels(values: Sequence[str]) -> list[str]:
    """The values without the words that all of them have."""
    shared = set.intersection(*(set(value.split()) for value in values)) if len(values) > 1 else set()
    kept = [" ".join(word for word in value.split() if word not in shared) or value for value in values]
    return [plain(label, 32) for label in kept]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
