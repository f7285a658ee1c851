"""Which factor of an ablation pays: what adding it gives, everything else equal, and its teachers' bill."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from densecli.ablation.aggregate import digits
from densecli.ablation.runs import RunResult
from densecli.ablation.spec import value_text
from densecli.core.metrics import METRICS
from densecli.core.page import Table

FEWEST_PAIRS = 3
"""Fewer differences tell too little about their own spread."""
SURE = 2.0
"""A difference counts if it is larger than so many of its standard errors."""
RULE = (
    f"A factor pays if it improves a figure by more than {SURE:g} times the standard error (±) of the mean "
    f"difference, over at least {FEWEST_PAIRS} pairs of runs that are alike in everything else and in the "
    "seed, and makes no figure worse by as much."
)


class Difference(NamedTuple):
    """What adding a factor changes in one figure.

    Attributes:
        mean: Mean over the pairs.
        error: Standard error of the mean; 0 with one pair.
        low: The lowest difference.
        high: The highest.
        pairs: Number of pairs.
    """

    mean: float
    error: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Difference":
        """Of at least one pair."""
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        return cls(statistics.mean(values), error, min(values), max(values), len(values))

    @property
    def sure(self) -> bool:
        """Whether the difference is more than chance, by `RULE`."""
        return self.pairs >= FEWEST_PAIRS and abs(self.mean) > SURE * self.error

    def text(self, heading: str) -> str:
        """Such as +1.5 (±0.4)."""
        places = digits(heading)
        return f"{self.mean:+.{places}f} (±{self.error:.{places}f})"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether adding a factor pays.

    Attributes:
        factor: What is added: entries of a list such as `--loss`, or a switch.
        differences: By heading.
        seconds: Seconds that the teachers took, once, for the columns that only the runs with it read.
    """

    factor: str
    differences: Mapping[str, Difference]
    seconds: float

    @property
    def better(self) -> list[str]:
        """Headings of the figures that it improves, more than by chance."""
        return [h for h, each in self.differences.items() if each.sure and _improves(h, each)]

    @property
    def worse(self) -> list[str]:
        """Headings of the figures that it makes worse, more than by chance."""
        return [h for h, each in self.differences.items() if each.sure and not _improves(h, each)]

    @property
    def pairs(self) -> int:
        """Number of pairs of the figure with the most."""
        return max(each.pairs for each in self.differences.values())

    @property
    def sentence(self) -> str:
        """The verdict."""
        bill = f"for {self.seconds:,.0f} s of teachers" if self.seconds else "for no further teacher"
        if self.pairs < FEWEST_PAIRS:
            pairs = "1 pair" if self.pairs == 1 else f"{self.pairs} pairs"
            return (
                f"{self.factor}: no verdict from {pairs} of runs, {bill}; run at least {FEWEST_PAIRS} seeds."
            )
        if not self.better and not self.worse:
            return f"{self.factor} does not pay: no figure changes by more than chance, {bill}."
        verb = "does not pay" if not self.better else "pays in part" if self.worse else "pays"
        gains = ", ".join(self._named(heading) for heading in self.better)
        losses = ", ".join(self._named(heading) for heading in self.worse)
        return f"{self.factor} {verb}: {', but '.join(filter(None, (gains, losses)))}, {bill}."

    def _named(self, heading: str) -> str:
        mean, _, error = self.differences[heading].text(heading).partition(" ")
        return f"{mean} {heading} {error}"


def _improves(heading: str, difference: Difference) -> bool:
    higher = heading not in METRICS or METRICS[heading].higher_is_better
    return (difference.mean > 0) == higher


def verdicts(
    results: Sequence[RunResult],
    columns: Mapping[str, Mapping[str, str]],
    bills: Mapping[str, Mapping[str, float]],
) -> list[Verdict]:
    """Judges what can be added to a run: the entries of lists, such as loss terms, and switches.

    Two runs are a pair if one has a factor that the other lacks, and they are alike in all other settings and
    in the seed. Entries that are added together are a factor too, where they are so to different runs.

    Args:
        results: The runs; those that failed, and models that were not trained, have no part in it.
        columns: Keys of the columns that each run has read, by kind, by the run's name.
        bills: For each of these keys, the seconds that teachers took for it, by the name of their column.

    Returns:
        In the order in which the factors occur, those of several entries last.
    """
    runs = [run for run in results if run.settings and not run.error]
    by_items = {_items(run): run for run in runs}
    order = list(dict.fromkeys(item for run in runs for item in run_items(run)))
    gains: dict[frozenset[str], list[tuple[RunResult, RunResult]]] = {}
    for (less, before), (more, after) in ((a, b) for a in by_items.items() for b in by_items.items()):
        if less[0] == more[0] and less[1] < more[1]:
            gains.setdefault(more[1] - less[1], []).append((before, after))
    found = []
    for added, pairs in gains.items():
        bases = {_items(before)[1] for before, _ in pairs}
        if len(added) > 1 and len(bases) == 1:
            continue
        factor = " + ".join(sorted(added, key=order.index))
        found.append((len(added), min(map(order.index, added)), _verdict(factor, pairs, columns, bills)))
    return [verdict for *_, verdict in sorted(found, key=lambda each: each[:2])]


def run_items(run: RunResult) -> list[str]:
    """What can be added to a run: entries of its lists, and switches that are on."""
    items = []
    for flag, value in run.settings.items():
        if isinstance(value, list):
            items += [value_text(entry) for entry in value]
        elif value is True:
            items.append(flag)
    return items


def _items(run: RunResult) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    """The settings that a pair has alike, and what one of its runs has more than the other."""
    alike = tuple((f, value_text(v)) for f, v in run.settings.items() if not isinstance(v, list | bool))
    return alike, frozenset(run_items(run))


def _verdict(
    factor: str,
    pairs: Sequence[tuple[RunResult, RunResult]],
    columns: Mapping[str, Mapping[str, str]],
    bills: Mapping[str, Mapping[str, float]],
) -> Verdict:
    differences = {}
    for heading in dict.fromkeys(h for _, after in pairs for h in after.figures if "top-5" not in h):
        values = [b.figures[heading] - a.figures[heading] for a, b in pairs if heading in a.figures]
        if values:
            differences[heading] = Difference.of(values)
    added: dict[str, float] = {}
    for before, after in pairs:
        paid, needed = (
            {n: s for key in columns[run.name].values() for n, s in bills.get(key, {}).items()}
            for run in (before, after)
        )
        added |= {name: seconds for name, seconds in needed.items() if name not in paid}
    return Verdict(factor=factor, differences=differences, seconds=sum(added.values()))


def verdict_table(found: Sequence[Verdict]) -> Table:
    """One row for each factor: what adding it changes, and what its teachers took."""
    headings = list(dict.fromkeys(heading for each in found for heading in each.differences))
    rows = []
    for each in found:
        figures = [each.differences[h].text(h) if h in each.differences else "-" for h in headings]
        rows.append([each.factor, str(each.pairs), *figures, f"{each.seconds:,.1f}"])
    return Table(
        title="What adding it changes, everything else equal",
        columns=["added", "pairs", *headings, "teacher seconds, once"],
        rows=rows,
        note=f"Mean difference (±standard error). {RULE}",
    )
