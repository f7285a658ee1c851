"""The runs of an ablation as one table: of every setting the mean over seeds, and how far they lie apart."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from densecli.ablation.runs import Done
from densecli.ablation.spec import written
from densecli.ablation.teacher_cost import Charge
from densecli.evaluation.page import Table

SEED = "seed"


class Spread(NamedTuple):
    mean: float
    low: float
    high: float

    def text(self, digits: int = 1) -> str:
        """68.3 (68.2 to 68.6), or the number alone where there is but one."""
        mean = f"{self.mean:.{digits}f}"
        alone = self.low == self.high
        return mean if alone else f"{mean} ({self.low:.{digits}f} to {self.high:.{digits}f})"


class Row(NamedTuple):
    """name: of a model measured as it came, else "trained". settings: the grid's but for the seed, so none of
    the former. runs: how many are behind the figures, of `of`."""

    name: str
    settings: Mapping[str, str]
    figures: Mapping[str, Spread]
    runs: int
    of: int


def rows(done: Iterable[Done]) -> list[Row]:
    """The runs with their seeds taken together, in the order in which they come."""
    groups: dict[tuple, list[Done]] = {}
    for run in done:
        settings = tuple((flag, written(value)) for flag, value in run.settings.items() if flag != SEED)
        groups.setdefault(("trained" if run.settings else run.name, settings), []).append(run)
    found = []
    for (name, settings), group in groups.items():
        whole = [run for run in group if not run.error]
        headings = dict.fromkeys(heading for run in whole for heading in run.figures)
        figures = {h: _spread([run.figures[h] for run in whole if h in run.figures]) for h in headings}
        found.append(Row(name, dict(settings), figures, len(whole), len(group)))
    return found


def overview(found: Sequence[Row], headings: Sequence[str], *, title: str = "") -> Table:
    """A row for every setting and every model measured as it came. headings: the figures shown."""
    flags = list(dict.fromkeys(flag for row in found for flag in row.settings))
    values = [spread.mean for row in found for h, spread in row.figures.items() if h in headings]
    digits = 1 if max(map(abs, values), default=0) > 1.5 else 3
    cells = []
    for row in found:
        named = [row.settings[flag] for flag in flags] if row.settings else [row.name, *[""] * len(flags)]
        lost = f" [{row.runs} of {row.of} runs]" if row.runs < row.of else ""
        figures = [row.figures[h].text(digits) if h in row.figures else "-" for h in headings]
        named = named[: max(len(flags), 1)]
        cells.append([f"{named[0]}{lost}", *named[1:], *figures])
    seeds = max((row.of for row in found), default=1)
    note = f"Mean (lowest to highest) of {seeds} seeds." if seeds > 1 else ""
    return Table(title=title, columns=[*(flags or ["model"]), *headings], rows=cells, note=note)


def markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def rows_csv(found: Sequence[Row]) -> str:
    """A line for every setting: each figure's mean, lowest and highest."""
    lines = [
        {
            **(row.settings or {"model": row.name}),
            "runs": row.runs,
            **{
                f"{heading} {name}": value
                for heading, spread in row.figures.items()
                for name, value in zip(("mean", "low", "high"), spread, strict=True)
            },
        }
        for row in found
    ]
    return _csv(lines)


def runs_csv(done: Sequence[Done]) -> str:
    """A line for every run: settings, figures, and why it has none."""
    return _csv(
        [
            {"run": run.name, **{f: written(v) for f, v in run.settings.items()}, **run.figures}
            | ({"error": run.error} if run.error else {})
            for run in done
        ]
    )


def bill_table(charges: Sequence[Charge]) -> Table:
    """What the teachers cost, once and live."""
    lines = [
        [c.column, f"{c.once:,.1f}", f"{c.a_photo * 1000:,.2f}", f"{c.seen:,}", f"{c.live:,.1f}"]
        for c in charges
    ]
    once, live = sum(c.once for c in charges), sum(c.live for c in charges)
    return Table(
        title="What the teachers cost",
        columns=["column", "seconds, once", "ms a photo, live", "photos seen", "seconds, live"],
        rows=[*lines, ["all", f"{once:,.1f}", "", "", f"{live:,.1f}"]],
        note=f"The store took {once:,.1f} s of its workers, once; live teachers would have spoken for "
        f"{live:,.1f} s in the steps of these runs{f', {live / once:.1f} times as long' if once else ''}. "
        "Seconds are those of the receipts, on the machine that built the store; a live teacher is charged "
        "with looking alone, the store also with decoding and encoding.",
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.mean(values), min(values), max(values))


def _csv(lines: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    names = dict.fromkeys(name for line in lines for name in line)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
