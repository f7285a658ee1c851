"""What the teachers of a set of runs cost, once into the store, and what they would cost in every step."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from densecli.shards.reader import decode_npz, read_joined
from densecli.shards.store import Column, Store

# Stages of a receipt in which nothing is done, and those that a live teacher has as well.
IDLE, LIVE = {"wait"}, {"prepare", "teacher"}


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One column. once: seconds of all workers that it took; a_photo: seconds that its teacher takes for what
    one step looks at of a photo; seen: photos that the runs which read it have looked at."""

    column: str
    once: float
    a_photo: float
    seen: int

    @property
    def live(self) -> float:
        return self.a_photo * self.seen


def bill(store: Store, runs: Iterable[tuple[Mapping[str, str], int]]) -> list[Charge]:
    """A charge for each target column that runs read, a run being (keys of its columns, photos it has seen).

    A live teacher looks at one view: where a column holds K of a photo, a K-th of the seconds is counted.
    What was relabelled is charged to its features column, whose teacher would have to speak, if that is still
    there. Reads receipts, and of columns of views a shard.
    """
    columns = {column.key: column for column in store.columns("targets")}
    seen: dict[str, int] = {}
    for keys, photos in runs:
        for key in columns.keys() & set(keys.values()):
            source = columns[key].spec.get("features")
            seen[key] = seen.get(key, 0) + (0 if source else photos)
            if source in columns:
                seen[source] = seen.get(source, 0) + photos
    return [_charge(columns[key], photos) for key, photos in sorted(seen.items())]


def _charge(column: Column, seen: int) -> Charge:
    receipts = {shard: r for shard in column.shard_names if (r := column.receipt(shard))}
    spent = [stage for r in receipts.values() for stage in r.seconds.items()]
    live = sum(seconds for stage, seconds in spent if stage in LIVE)
    samples = sum(r.samples for r in receipts.values()) or 1
    filled = [shard for shard, r in receipts.items() if r.samples]
    views = _views(column, filled[0]) if filled and "views" in column.spec["target"] else 1
    return Charge(
        column=column.full_name,
        once=sum(seconds for stage, seconds in spent if stage not in IDLE),
        a_photo=live / samples / views,
        seen=seen,
    )


def _views(column: Column, shard: str) -> float:
    """How many views of a photo are in a shard, the mean: a plan may have fewer than were asked for."""
    records = read_joined([column], shard)
    return statistics.mean(len(decode_npz(record.parts[column.part]["npz"])["views"]) for record in records)
