"""Contenders that took turns, beside each other."""

import statistics
from collections.abc import Callable, Mapping, Sequence


def compared(
    took: Mapping[str, Sequence[tuple[float, float]]], unit: Callable[[float], float], digits: int
) -> list[list[str]]:
    """A row a contender, of (clock, CPU) seconds a round: medians of what `unit` makes of them, the clock's
    range, and their shares of the first contender's. The first round warms up."""
    rows: list[list[str]] = []
    base: list[float] = []
    for name, runs in took.items():
        figures = [[unit(seconds) for seconds in column] for column in zip(*runs[1:], strict=True)]
        medians = [statistics.median(column) for column in figures]
        base = base or medians
        shares = [f"{m / b:.2f}" for m, b in zip(medians, base, strict=True)]
        clock, cpu = (f"{m:,.{digits}f}" for m in medians)
        wide = f"{min(figures[0]):,.{digits}f} to {max(figures[0]):,.{digits}f}"
        rows.append([name, clock, wide, shares[0], cpu, shares[1]])
    return rows
