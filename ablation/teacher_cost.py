"""The cost of teachers: once, to build the columns of a store, and live, in every training step."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from densecli.shards.joined import read_joined
from densecli.shards.receipt_totals import describe_shards
from densecli.shards.store import Column, Store

# Stages in a receipt: those in which a worker only waits, and those that a live teacher has too.
WAITING, LIVE = {"wait"}, {"prepare", "teacher"}


@dataclass(frozen=True, kw_only=True)
class TeacherCost:
    """The cost of one target column.

    Attributes:
        column: NAME-ID.
        stored_seconds: Seconds of all workers to build the column.
        seconds_per_photo: Seconds that a live teacher would take for one photo in a step.
        photos_seen: Photos that all runs with this column have seen, including repetitions.
    """

    column: str
    stored_seconds: float
    seconds_per_photo: float
    photos_seen: int

    @property
    def live_seconds(self) -> float:
        """Seconds that the teacher would have taken in the steps of the runs."""
        return self.seconds_per_photo * self.photos_seen


def teacher_costs(store: Store, runs: Iterable[tuple[Mapping[str, str], int]]) -> list[TeacherCost]:
    """Computes the cost of each target column that runs have read, from the totals of the store's receipts.

    A live teacher sees one view in a step, so if a column holds K views of a photo, a K-th of its time
    counts. The live cost of a relabelled column is that of its features column, if that still exists: its
    teacher would have to run. That of a mix is the cost of the columns that it is made of.

    Args:
        store: The store that the runs have read.
        runs: For each run, the keys of its columns by kind, and the number of photos it has seen.
    """
    columns = {column.key: column for column in store.columns("targets")}
    seen: dict[str, int] = {}
    for keys, photos in runs:
        for key in columns.keys() & set(keys.values()):
            sources = _sources(key, columns)
            for column in columns.keys() & {key, *sources}:
                live = column in sources or not sources
                seen[column] = seen.get(column, 0) + (photos if live else 0)
    return [_cost(columns[key], photos) for key, photos in sorted(seen.items())]


def column_bills(store: Store, keys: Iterable[str]) -> dict[str, dict[str, float]]:
    """What columns cost to build: seconds of their teachers' columns by full name, by the key of each column.

    Args:
        store: The store.
        keys: Keys of columns; photos and boxes have no teacher.
    """
    costs = {key: teacher_costs(store, [({"": key}, 0)]) for key in dict.fromkeys(keys)}
    return {key: {cost.column: cost.stored_seconds for cost in found} for key, found in costs.items()}


def _sources(key: str, columns: Mapping[str, Column]) -> set[str]:
    """Keys of the columns whose teachers would have to run for a column; none if it has its own."""
    if key not in columns:
        return set()
    spec = columns[key].spec
    parts = {*spec.get("mixed", {}), *([spec["features"]] if "features" in spec else [])}
    return {source for part in parts for source in _sources(part, columns) or {part}}


def _cost(column: Column, seen: int) -> TeacherCost:
    there = describe_shards(column)
    spent = there.totals["run"]["seconds"]
    samples = int(there.samples.sum()) or 1
    filled = there.shards[there.samples > 0]
    asked = len(filled) and "views" in column.spec["target"]
    views = _mean_views(column, column.shard_names[filled[0]]) if asked else 1
    return TeacherCost(
        column=column.full_name,
        stored_seconds=sum(seconds for stage, seconds in spent.items() if stage not in WAITING),
        seconds_per_photo=sum(spent.get(stage, 0) for stage in LIVE) / samples / views,
        photos_seen=seen,
    )


def _mean_views(column: Column, shard: str) -> float:
    """Mean number of stored views of a shard's photos; some photos have fewer than the column says."""
    records = read_joined([column], shard)
    return statistics.mean(len(record.arrays(column.part)["views"]) for record in records)
