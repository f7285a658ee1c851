"""Charts are small, reproducible SVG: what they show is in them as text, and hostile names are only text."""

import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from densecli.core.charts import Curve, Measured, bar_chart, history_chart, line_chart


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in parsed(svg).iter("text")]


def lines(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """The points of every path that is stroked in a colour."""
    found = []
    for path in parsed(svg).iter("path"):
        if colour in path.get("style", "") and "fill: none" in path.get("style", ""):
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d", ""))]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def line(svg: str, colour: str = "#0072b2") -> list[tuple[float, float]]:
    """The longest of them: the line through the means."""
    return max(lines(svg, colour), key=len)


def chart(points: list[tuple[str, float, float]], full_scale: float = 100, **levels: float) -> str:
    """Of (setting, mean, distance to the lowest and highest run)."""
    measured = [Measured(name, mean, mean - reach, mean + reach) for name, mean, reach in points]
    return line_chart(
        {"": measured}, x_label="theta", y_label="Boxes, %", full_scale=full_scale, levels=levels
    )


def test_bar_chart__bars_are_as_long_as_their_values_and_say_them() -> None:
    svg = bar_chart({"before": [25, None], "after": [50, 100]}, ["Boxes", "Masks"])
    assert {"before", "after", "Boxes", "Masks", "25.0", "50.0", "-", "100.0", "percent"} <= set(texts(svg))

    def lengths(colour: str) -> list[float]:
        paths = [p.get("d", "") for p in parsed(svg).iter("path") if f"fill: {colour}" in p.get("style", "")]
        xs = [[float(n) for n in re.findall(r"[ML] (-?[\d.]+)", path)] for path in paths]
        # The legend's square comes last.
        return [max(x) - min(x) for x in xs][:2]

    (a, b), (c, d) = lengths("#0072b2"), lengths("#e69f00")
    assert c == pytest.approx(2 * a, rel=1e-3) and d == pytest.approx(4 * a, rel=1e-3) and b == 0


def test_line_chart__levels_beyond_the_axis_are_named_at_its_edge() -> None:
    svg = chart([("0.1", 60, 0.5), ("0.3", 61, 0.5)], base=20, teacher=95.25, near=60.5)
    said = texts(svg)
    assert "near" in said and "↓ base: 20" in said and "↑ teacher: 95.25" in said
    # One dashed line alone.
    assert svg.count("stroke-dasharray") == 1


def test_line_chart__numbers_stand_where_they_lie() -> None:
    svg = chart([("0.1", 10, 1), ("0.3", 30, 1), ("0.7", 70, 1)])
    assert {"theta", "Boxes, %", "0.1", "0.3", "0.7"} <= set(texts(svg))
    (x0, y0), (x1, y1), (x2, y2) = line(svg)
    assert (x2 - x1) == pytest.approx(2 * (x1 - x0), rel=1e-3)
    assert (y1 - y2) == pytest.approx(2 * (y0 - y1), rel=1e-3)


def test_line_chart__values_over_decades_are_logarithmic() -> None:
    (x0, _), (x1, _), (x2, _) = line(chart([("0.001", 1, 0), ("0.01", 2, 0), ("1", 3, 0)]))
    assert (x2 - x1) == pytest.approx(2 * (x1 - x0), rel=1e-3)


def test_line_chart__words_are_not_connected() -> None:
    words, numbers = chart([("a", 1, 0), ("b", 2, 0)]), chart([("1", 1, 0), ("2", 2, 0)])

    def slopes(svg: str) -> list[list[tuple[float, float]]]:
        found = lines(svg, "#0072b2")
        return [points for points in found if all(len({*axis}) > 1 for axis in zip(*points, strict=True))]

    assert slopes(numbers) and not slopes(words) and {"a", "b"} <= set(texts(words))


@pytest.mark.parametrize("reach", [0.0, 0.4])
def test_line_chart__noise_stays_flat(reach: float) -> None:
    ys = [y for _, y in line(chart([("1", 60.0, reach), ("2", 60.4, reach), ("3", 60.1, reach)]))]
    axis = max(y for points in lines(chart([("1", 10, 0), ("2", 90, 0)]), "#0072b2") for _, y in points)
    assert max(ys) - min(ys) < 0.15 * axis


def test_line_chart__a_range_is_drawn_from_the_lowest_to_the_highest() -> None:
    svg = chart([("1", 20, 10), ("2", 60, 10), ("3", 60, 10)])
    (_, y0), (_, y1), _ = line(svg)
    upright = [p for p in lines(svg, "#0072b2") if len(p) == 2 and p[0][0] == p[1][0]]
    assert len(upright) == 3
    for (_, a), (_, b) in upright:
        assert abs(a - b) == pytest.approx((y0 - y1) / 2, rel=1e-2)


def test_line_chart__models_beside_only_where_they_are_near() -> None:
    svg = chart([("1", 20, 1), ("2", 60, 1)], near=30.0, far=95.0)
    assert "near" in texts(svg) and "far" not in texts(svg)


def test_line_chart__several_lines_have_a_legend_and_do_not_hide_each_other() -> None:
    points = [Measured(str(n), 20 * n, 20 * n - 1, 20 * n + 1) for n in (1, 2, 3)]
    svg = line_chart(
        {"decoupling 1": points, "decoupling 4": points},
        x_label="theta",
        y_label="y",
        full_scale=100,
        levels={},
    )
    assert {"decoupling 1", "decoupling 4"} <= set(texts(svg))
    assert line(svg)[0][0] < line(svg, "#e69f00")[0][0]


def test_line_chart__long_values_lose_what_they_share() -> None:
    names = [f"region_cosine=1 spatial:self=0.{i}" for i in range(1, 6)]
    found = texts(chart([(name, 50, 1) for name in names]))
    assert {f"spatial:self=0.{i}" for i in range(1, 6)} <= set(found)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "$x^2$ costs $", "a & b", "\x1b[31mred\x00", "y" * 10_000, "]]>"]
)
def test_charts__a_hostile_name_is_a_short_text(name: str) -> None:
    drawn = (
        bar_chart({name: [1.0]}, [name]),
        line_chart(
            {name: [Measured(name, 1, 1, 1)], "b": [Measured("z", 2, 2, 2)]},
            x_label=name,
            y_label=name,
            full_scale=100,
            levels={name: 1.0},
        ),
    )
    for svg in drawn:
        assert not list(parsed(svg).iter("script")) and len(svg) < 40_000
        assert max(map(len, texts(svg))) <= 80


def test_charts__the_same_values_give_the_same_bytes_and_need_no_network() -> None:
    made = [chart([("1", 20, 1), ("2", 60, 1)]) for _ in range(2)]
    assert made[0] == made[1] and "http" not in made[0]
    assert "currentColor" in made[0] and "#000000" not in made[0]


def test_charts__matplotlib_is_loaded_when_a_chart_is_drawn() -> None:
    code = (
        "import sys, densecli.core.page, densecli.core.charts, densecli.ablation.report;"
        "import densecli.evaluation.region_page, densecli.train.distillation;"
        "assert 'matplotlib' not in sys.modules;"
        "densecli.core.charts.bar_chart({'a': [1.0]}, ['b']);"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_history_chart__noise_is_flat_and_a_fall_is_not() -> None:
    def extent(y: list[float], reach: float) -> float:
        """Share of the chart's height between the highest and the lowest point of the line."""
        x = list(range(1, len(y) + 1))
        curve = Curve(x=x, y=y, low=[v - reach for v in y], high=[v + reach for v in y])
        svg = history_chart(curve, y_label="loss", full_scale=max(y))
        heights = [height for _, height in line(svg)]
        axis = max((points for points in lines(svg, "currentColor") if len(points) == 2), key=tall)
        return (max(heights) - min(heights)) / tall(axis)

    def tall(points: list[tuple[float, float]]) -> float:
        return abs(points[0][1] - points[1][1])

    noise = [2 + 0.02 * math.sin(9 * i) for i in range(30)]
    assert extent(noise, 0.02) < 0.5 and extent(noise, 0.0) < 0.25
    assert extent([2 - i / 30 for i in range(30)], 0.02) > 0.75


def test_history_chart__of_a_single_value_and_of_zeros() -> None:
    for value in (0.0, 3.0, -1.0):
        curve = Curve(x=[1], y=[value], low=[value], high=[value])
        svg = history_chart(curve, y_label="loss", full_scale=abs(value), marked=1)
        assert "nan" not in svg and "loss" in texts(svg) and "step" in texts(svg)
