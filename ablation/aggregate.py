"""Aggregates the runs of an ablation: for each setting, the mean and the range over seeds."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from densecli.ablation.runs import RunResult
from densecli.ablation.spec import value_text
from densecli.ablation.teacher_cost import TeacherCost
from densecli.core.metrics import METRICS
from densecli.core.page import Table
from densecli.core.tables import csv_table

SEED = "seed"


class SeedAggregate(NamedTuple):
    """Mean, lowest and highest value of one figure over the seeds of a setting."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "SeedAggregate":
        """Aggregates at least one value."""
        return cls(statistics.mean(values), min(values), max(values))

    def text(self, digits: int = 1) -> str:
        """The mean and the range, such as 68.3 (68.2 to 68.6); only the mean if all values are equal."""
        mean = f"{self.mean:.{digits}f}"
        alone = self.low == self.high
        return mean if alone else f"{mean} ({self.low:.{digits}f} to {self.high:.{digits}f})"


class SettingRow(NamedTuple):
    """The aggregate of one setting, or of a model that was evaluated without training.

    Attributes:
        name: Name of the model; "trained" for a setting.
        settings: Values of the grid's flags except the seed; empty for a model.
        figures: Aggregates by heading.
        finished: Number of runs that have figures.
        started: Number of all runs.
    """

    name: str
    settings: Mapping[str, str]
    figures: Mapping[str, SeedAggregate]
    finished: int
    started: int

    @property
    def title(self) -> str:
        """The settings, such as "theta 0.3, decoupling full", or the model's name."""
        return ", ".join(f"{flag} {value}" for flag, value in self.settings.items()) or self.name


def aggregate(results: Iterable[RunResult]) -> list[SettingRow]:
    """Aggregates runs that differ only in their seed, in the order of the first run of each setting."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[RunResult]] = {}
    for run in results:
        settings = tuple((flag, value_text(value)) for flag, value in run.settings.items() if flag != SEED)
        groups.setdefault(("trained" if run.settings else run.name, settings), []).append(run)
    rows = []
    for (name, settings), group in groups.items():
        finished = [run for run in group if not run.error]
        headings = dict.fromkeys(heading for run in finished for heading in run.figures)
        figures = {
            heading: SeedAggregate.of([run.figures[heading] for run in finished if heading in run.figures])
            for heading in headings
        }
        rows.append(SettingRow(name, dict(settings), figures, len(finished), len(group)))
    return rows


def settings_table(rows: Sequence[SettingRow], headings: Sequence[str], *, title: str = "") -> Table:
    """One row for each setting and each model that was evaluated without training.

    Args:
        rows: See `aggregate`.
        headings: The figures to show.
        title: Title of the table.
    """
    flags = list(dict.fromkeys(flag for row in rows for flag in row.settings))
    cells = []
    for row in rows:
        named = [row.settings[flag] for flag in flags] if row.settings else [row.name, *[""] * len(flags)]
        missing = f" [{row.finished} of {row.started} runs]" if row.finished < row.started else ""
        figures = [row.figures[h].text(digits(h)) if h in row.figures else "-" for h in headings]
        named = named[: max(len(flags), 1)]
        cells.append([f"{named[0]}{missing}", *named[1:], *figures])
    seeds = max((row.started for row in rows), default=1)
    note = f"Mean (lowest to highest) of {seeds} seeds." if seeds > 1 else ""
    return Table(title=title, columns=[*(flags or ["model"]), *headings], rows=cells, note=note)


def digits(heading: str) -> int:
    """Number of decimals of a figure: ratios need more than percentages."""
    return 1 if heading not in METRICS or METRICS[heading].percent else 3


def settings_csv(rows: Sequence[SettingRow]) -> str:
    """CSV with one line for each setting: the mean, lowest and highest value of each figure."""
    return csv_table(
        [
            {
                **(row.settings or {"model": row.name}),
                "runs": row.finished,
                **{
                    f"{heading} {name}": value
                    for heading, figure in row.figures.items()
                    for name, value in figure._asdict().items()
                },
            }
            for row in rows
        ]
    )


def runs_csv(results: Sequence[RunResult]) -> str:
    """CSV with one line for each run: its settings, its figures and, if it failed, its error."""
    return csv_table(
        [
            {"run": run.name, **{f: value_text(v) for f, v in run.settings.items()}, **run.figures}
            | ({"error": run.error} if run.error else {})
            for run in results
        ]
    )


def cost_table(costs: Sequence[TeacherCost]) -> Table:
    """What the teachers cost to run once, and what they would have cost live in every training step."""
    lines = [
        [
            cost.column,
            f"{cost.stored_seconds:,.1f}",
            f"{cost.seconds_per_photo * 1000:,.2f}",
            f"{cost.photos_seen:,}",
            f"{cost.live_seconds:,.1f}",
        ]
        for cost in costs
    ]
    stored, live = sum(c.stored_seconds for c in costs), sum(c.live_seconds for c in costs)
    ratio = f", {live / stored:.1f} times as long" if stored else ""
    return Table(
        title="Teacher cost",
        columns=["column", "seconds, once", "ms per photo, live", "photos seen", "seconds, live"],
        rows=[*lines, ["all", f"{stored:,.1f}", "", "", f"{live:,.1f}"]],
        note=f"Building the columns took the workers {stored:,.1f} s, once. Live teachers would have taken"
        f" {live:,.1f} s in the steps of these runs{ratio}. Times are from the store's receipts, on the"
        " machine that built it. Those of live teachers are forward passes only; those of the store include"
        " decoding and encoding.",
    )
