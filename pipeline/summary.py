"""What building units comes to, told as it goes and in all: the same for build-shards and relabel."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from densecli.core.errors import Interrupted
from densecli.core.progress import Progress
from densecli.core.signals import Stop, heeding_signals
from densecli.pipeline.shard_builder import Report, Unit
from densecli.shards.store import Column, Store

Summary = dict[str, Any]
Reports = Generator[tuple[Unit, Report]]


def carried_out(
    store: Store,
    columns: list[Column],
    *,
    dry_run: bool,
    make: Callable[[], object],
    build: Callable[[list[str]], Summary],
) -> Summary:
    """Has `build` make the shards that are missing, where there are any and it is no dry run.

    make: the columns, without a shard. Returns `status` ("built", "up to date" or "planned"), `store`,
    `columns` (kind, name, id, shards, and those missing before), and of a build what that returned.
    """
    missing = [column.missing() for column in columns]
    todo = sorted(set().union(*missing))
    summary: Summary = {
        "status": "up to date",
        "store": store.root,
        "columns": [_described(c, len(shards)) for c, shards in zip(columns, missing, strict=True)],
    }
    if todo and dry_run:
        summary["status"] = "planned"
    elif todo:
        summary |= {"status": "built", **build(todo)}
    elif not dry_run:
        # The shards are there, but what describes them may have been lost.
        make()
    return summary


def _described(column: Column, missing: int) -> Summary:
    return {
        "kind": column.kind,
        "name": column.name,
        "id": column.id,
        "shards": len(column.shard_names),
        "missing": missing,
    }


def tallied(
    store: Store,
    todo: Sequence[str],
    reports: Callable[[Stop, Progress], Reports],
    *,
    verb: str,
    watch: Callable[[Counter[str], Report], None] = lambda skipped, report: None,
) -> Summary:
    """`shards`, `samples` in them, `skipped` photos by reason, `seconds` by stage and in all, and
    `images_per_second` of the reports on `todo`.

    reports: builds units until it is told to stop. verb: what is stopped. watch: sees each report and all
    that was skipped until then. SIGINT and SIGTERM end it in good order, as Interrupted.
    """
    start = time.monotonic()
    samples, skipped, seconds = 0, Counter[str](), Counter[str]()
    planned = {shard: store.shard_sizes[int(shard)] for shard in todo}
    total = sum(planned.values())
    with (
        heeding_signals() as stop,
        closing(Progress(total, "images")) as progress,
        closing(reports(stop, progress)) as finished,
    ):
        for unit, report in finished:
            progress.advance(planned[unit.shard])
            samples += report.samples
            skipped.update(report.skipped)
            seconds.update(report.seconds)
            watch(skipped, report)
    if stop.signal:
        raise Interrupted(
            stop.signal,
            f"{stop.signal.name} stopped {verb}; {progress.done} of {total} photos were done.",
            hint="The same command goes on where it stopped.",
        )
    elapsed = time.monotonic() - start
    return {
        "shards": len(todo),
        "samples": samples,
        "skipped": dict(skipped),
        "seconds": {**{stage: round(s, 3) for stage, s in seconds.items()}, "total": round(elapsed, 3)},
        "images_per_second": round(samples / elapsed, 2),
    }
