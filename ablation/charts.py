"""The charts of an ablation: each figure over the setting with the most values."""

from collections.abc import Mapping, Sequence

from densecli.ablation.aggregate import SettingRow, digits
from densecli.core.charts import WIDTH, Measured, line_chart
from densecli.core.metrics import METRICS
from densecli.core.page import Figure


def metric_chart(heading: str, rows: Sequence[SettingRow]) -> Figure:
    """Draws a chart of one figure, with a line for each combination of the other settings.

    Args:
        heading: Heading of the figure.
        rows: At least one setting has the figure. Models that were not trained become dashed lines.
    """
    trained = [row for row in rows if row.settings and heading in row.figures]
    models = {r.name: r.figures[heading].mean for r in rows if not r.settings and heading in r.figures}
    metric = METRICS.get(heading)
    percent = metric is None or metric.percent
    settings = chart_axis([row.settings for row in trained])
    chart = line_chart(
        _series(heading, trained, settings),
        x_label=settings,
        y_label=metric.label if metric else heading,
        full_scale=100 if percent else 1,
        levels=models,
    )
    values = [
        f"{row.title}: {row.figures[heading].text(digits(heading))}" for row in rows if heading in row.figures
    ]
    return Figure(title=heading, image=chart, alt="; ".join(values), note=_note(trained, models), width=WIDTH)


def chart_axis(settings: Sequence[Mapping[str, str]]) -> str:
    """The flag with the most values."""
    return max(settings[0], key=lambda flag: len({each[flag] for each in settings}))


def _series(heading: str, trained: Sequence[SettingRow], axis: str) -> dict[str, list[Measured]]:
    series: dict[str, list[Measured]] = {}
    for row in trained:
        name = ", ".join(f"{flag} {value}" for flag, value in row.settings.items() if flag != axis)
        series.setdefault(name, []).append(Measured(row.settings[axis], *row.figures[heading]))
    return series


def _note(trained: Sequence[SettingRow], models: Mapping[str, float]) -> str:
    seeds = max(row.finished for row in trained)
    text = (
        f"Mean of {seeds} seeds, with a bar from the lowest to the highest."
        if seeds > 1
        else "One seed: a small difference may be chance."
    )
    dashed = ", ".join(f"{name} {value:.4g}" for name, value in models.items())
    return (
        f"{text} Not trained (dashed, or with an arrow where beyond the chart): {dashed}." if models else text
    )
