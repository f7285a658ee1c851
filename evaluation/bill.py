"""What the teachers of a set of runs cost, once into the store, and what they would cost in every step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shards.store import Column, Store

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
    What was relabelled is charged to its features column, whose teacher would have to speak. Reads receipts.
    """
    columns = {column.key: column for column in store.columns("targets")}
    seen: dict[str, int] = {}
    for keys, photos in runs:
        for key in columns.keys() & set(keys.values()):
            source = columns[key].spec.get("features")
            seen[key] = seen.get(key, 0) + (0 if source else photos)
            if source:
                seen[source] = seen.get(source, 0) + photos
    return [_charge(columns[key], photos) for key, photos in sorted(seen.items())]


def _charge(column: Column, seen: int) -> Charge:
    receipts = [r for shard in column.shard_names if (r := column.receipt(shard))]
    samples = sum(r.samples for r in receipts) or 1
    live = sum(s for r in receipts for stage, s in r.seconds.items() if stage in LIVE)
    return Charge(
        column=f"{column.name}-{column.id}",
        once=sum(s for r in receipts for stage, s in r.seconds.items() if stage not in IDLE),
        a_photo=live / samples / column.spec["target"].get("views", 1),
        seen=seen,
    )
