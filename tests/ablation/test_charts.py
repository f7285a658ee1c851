"""The charts of an ablation: over which setting, and what a reader is told about chance."""

import pytest

from densecli.ablation.aggregate import SettingRow, aggregate
from densecli.ablation.charts import chart_axis, metric_chart
from densecli.ablation.report import measured_on
from densecli.ablation.runs import RunResult, figures_of

RESULTS = [
    RunResult(name="scenes-s", figures={"Boxes": 25.0}),
    *(
        RunResult(
            name=f"{theta}-{row}-{seed}",
            settings={"theta": theta, "decoupling": row, "seed": seed},
            figures={"Boxes": 100 * theta + row + seed},
        )
        for theta in (0.1, 0.3, 0.5)
        for row in (1, 4)
        for seed in (0, 1, 2)
    ),
]


def rows(seeds: int) -> list[SettingRow]:
    return aggregate([run for run in RESULTS if run.settings.get("seed", 0) in range(seeds)])


def test_axis__is_the_setting_with_the_most_values() -> None:
    assert chart_axis([row.settings for row in rows(3) if row.settings]) == "theta"


def test_metric_chart__has_its_unit_its_lines_and_the_models() -> None:
    figure = metric_chart("Boxes", rows(3))
    assert isinstance(figure.image, str)
    for text in ("Boxes, %", "theta", "decoupling 1", "decoupling 4", "scenes-s"):
        assert f">{text}</text>" in figure.image
    assert "theta 0.1, decoupling 1: 12.0 (11.0 to 13.0)" in figure.alt and "scenes-s: 25.0" in figure.alt


@pytest.mark.parametrize(("seeds", "note"), [(3, "Mean of 3 seeds"), (1, "may be chance")])
def test_metric_chart__says_how_many_seeds(seeds: int, note: str) -> None:
    figure = metric_chart("Boxes", rows(seeds))
    assert note in figure.note and "scenes-s 25" in figure.note


def test_metric_chart__lower_is_better_and_ratios() -> None:
    run = RunResult(
        name="t", settings={"theta": 1}, figures={"stuff as thing": 40.0, "cross-segment similarity": 0.25}
    )
    bias, coupling = (
        metric_chart(h, aggregate([run])) for h in ("stuff as thing", "cross-segment similarity")
    )
    assert "lower is better" in str(bias.image)
    assert "cross-segment similarity (lower is better)" in str(coupling.image)
    assert coupling.alt == "theta 1: 0.250"


def test_report__says_what_was_measured() -> None:
    about = {"data": "data/scenes, test", "photos": 300, "categories": "scenes (20)"}
    found = figures_of({"scenes-s": {"random_weights": False, "boxes_top1": 50.0, "measured": about}})
    runs = [RunResult(name=name, **found) for name in ("a", "b")]
    assert measured_on(runs) == ["Measured on data/scenes, test, 300 photos, categories scenes (20)."]
    assert measured_on([RunResult(name="c", error="It failed.")]) == []
