"""Summaries of builds and relabellings: their columns, and the sums of the reports on their units."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from densecli.core import fs
from densecli.core.errors import DenseCLIError, Interrupted
from densecli.core.passed_over import NAMED
from densecli.core.progress import Progress
from densecli.core.signals import Stop, heeding_signals
from densecli.core.tables import plain
from densecli.pipeline.failures import SetAside
from densecli.pipeline.unit import Report
from densecli.shards.mask_plan import MaskCounts
from densecli.shards.store import Column, Store, shard_name

Summary = dict[str, Any]
"""JSON values by name."""
SHOWN = 5
"""Number of failed shards that an error names with their reasons."""


def describe(
    store: Store, columns: Sequence[Column], missing: Sequence[Sequence[str]], *, status: str
) -> Summary:
    """Returns `status`, `store` and `columns`: kind, name, id, shards, how many of them are missing, and
    whether readers compute it.

    Args:
        store: The store of the columns.
        columns: The requested columns.
        missing: The shards that each column lacks.
        status: One of "built", "up to date" and "planned".
    """
    described = [
        {
            "kind": column.kind,
            "name": column.name,
            "id": column.id,
            "shards": len(column.shard_names),
            "missing": len(shards),
            "computed": column.computed,
            **({"precision": column.precision} if column.kind == "targets" else {}),
        }
        for column, shards in zip(columns, missing, strict=True)
    ]
    return {"status": status, "store": fs.shown(store.root), "columns": described}


class ShardsSetAside(DenseCLIError):
    """Shards that failed too often.

    Attributes:
        shards: The shards.
        most: The run ended early if there are more.
    """

    def __init__(self, shards: Sequence[SetAside], most: int) -> None:
        self.shards, self.most = tuple(shards), most
        shown = "; ".join(f"{each.shard}: {plain(each.reason, 200)}" for each in shards[:SHOWN])
        more = f"; and {len(shards) - SHOWN} more" if len(shards) > SHOWN else ""
        hints = list(dict.fromkeys(each.hint for each in shards if each.hint))
        if self.too_many:
            hints.append(
                f"The run ended because more than {most} failed (--max-failed-shards). "
                "Finished shards are kept."
            )
        else:
            hints.append("All others are finished: the same command tries these alone.")
        super().__init__(
            f"{len(shards)} {'shard' if len(shards) == 1 else 'shards'} could not be built. {shown}{more}",
            hint=" ".join(hints),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.shards, self.most)

    @property
    def too_many(self) -> bool:
        """Whether the run ended early."""
        return len(self.shards) > self.most


class Totals:
    """Adds up the reports of a run and shows its progress."""

    def __init__(self, photos: Mapping[str, int], stop: Stop, progress: Progress) -> None:
        """Starts to measure time.

        Args:
            photos: Number of listed photos of each shard to build.
            stop: Set once a signal asks to stop.
            progress: Shows the number of photos.
        """
        self.stop = stop
        self.progress = progress
        self.skipped: Counter[str] = Counter()
        self.skipped_first: dict[str, list[str]] = {}
        self.set_aside: list[SetAside] = []
        self._shards = self._elsewhere = 0
        self._samples = 0
        self._seconds: Counter[str] = Counter()
        self._masks: MaskCounts | None = None
        self._photos = photos
        self._start = time.monotonic()

    def add(self, report: Report | SetAside) -> None:
        """Adds the report on one shard, or notes that it was set aside."""
        if isinstance(report, SetAside):
            self.set_aside.append(report)
            return
        self._shards += 1
        self.progress.advance(self._photos[report.shard])
        self._samples += report.samples
        self.skipped.update(report.skipped)
        for reason, photos in report.skipped_first.items():
            there = self.skipped_first.setdefault(reason, [])
            for photo in photos[: NAMED - len(there)]:
                self.progress.say(f"Skipped the photo {plain(photo)}: {reason}.")
                there.append(photo)
        self._seconds.update(report.seconds)
        if report.masks:
            self._masks = (self._masks or MaskCounts()) + report.masks

    def add_elsewhere(self, shards: Sequence[int]) -> None:
        """Notes shards that other builds of this store have made in the meantime, by their numbers."""
        self._elsewhere += len(shards)
        self.progress.advance(sum(self._photos[shard_name(shard)] for shard in shards), "by another build")

    def summary(self) -> Summary:
        """Returns the sums.

        `shards` and `samples` built, `skipped` photos by reason and the first of them in `skipped_first`,
        `elsewhere` the shards that other builds made, `seconds` by stage and in `total`,
        `images_per_second`, and `masks`, see `MaskCounts`, if regions were made of them.
        """
        elapsed = time.monotonic() - self._start
        stages = {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}
        return {
            "shards": self._shards,
            "elsewhere": self._elsewhere,
            "samples": self._samples,
            "skipped": dict(self.skipped),
            "skipped_first": self.skipped_first,
            "seconds": {**stages, "total": round(elapsed, 3)},
            "images_per_second": round(self._samples / elapsed, 2),
            **({"masks": self._masks.document} if self._masks else {}),
        }

    def check_set_aside(self, max_failed_shards: int) -> None:
        """Raises ShardsSetAside if shards were set aside.

        Args:
            max_failed_shards: The run has ended early if there are more.
        """
        if self.set_aside:
            raise ShardsSetAside(self.set_aside, max_failed_shards)


@contextmanager
def totals_of(
    store: Store,
    todo: Sequence[str],
    columns: Sequence[Column],
    *,
    run: str,
    if_nothing_kept: str = "The same command starts again.",
) -> Iterator[Totals]:
    """Yields the totals of a run. SIGINT and SIGTERM end it in good order.

    Args:
        store: The store.
        todo: Names of the shards to build.
        columns: What is built of each.
        run: What the message says that a signal stopped, such as "the build".
        if_nothing_kept: Hint for a run that was stopped before its first shard was finished.

    Raises:
        Interrupted: At the end of the block, if a signal asked to stop.
    """
    photos = {shard: store.shard_sizes[int(shard)] for shard in todo}
    total = sum(photos.values())
    with heeding_signals() as stop, closing(Progress(total, "photos")) as progress:
        yield Totals(photos, stop, progress)
    if stop.signal:
        kept, hint = _kept(columns, todo)
        raise Interrupted(
            stop.signal,
            f"{stop.signal.name} stopped {run}; {progress.done} of {total} photos were done, and {kept}.",
            hint=hint or if_nothing_kept,
        )


def _kept(columns: Sequence[Column], todo: Sequence[str]) -> tuple[str, str]:
    """What of the shards to build is in the store now, and how to go on."""
    counts = {c.name: len({*todo} - {*c.missing()}) for c in columns if not c.computed}
    if not any(counts.values()):
        return "nothing was kept, because no shard was finished", ""
    listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return (
        f"of {len(todo)} {'shard' if len(todo) == 1 else 'shards'} were kept: {listed}",
        "The same command continues with the others.",
    )
