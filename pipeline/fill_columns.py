"""Fills columns that are made of other columns: no photos, no teachers, on a CPU."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path

from densecli.core import fs
from densecli.core.leftovers import swept
from densecli.core.lock import FolderLock
from densecli.core.prefetch import Stopped
from densecli.core.signals import Stop
from densecli.pipeline.cluster import connected
from densecli.pipeline.config import FailureSettings
from densecli.pipeline.failures import SetAside
from densecli.pipeline.manifests import publish_manifests, withdraw_manifests
from densecli.pipeline.run_units import run_units
from densecli.pipeline.summary import Summary, describe, totals_of
from densecli.pipeline.unit import Report, Unit
from densecli.pipeline.worker import Work
from densecli.pipeline.worker_pool import WorkerPool
from densecli.shards.store import Column, Store

LOCK = f"{fs.TEMPORARY[0]}relabel.lock{fs.TEMPORARY[1]}"
"""Name of a file in the column's folder: `lint` and `gc` take what a killed command leaves for that."""
FAILURES = FailureSettings()


def fill_columns(
    store: Store,
    columns: Sequence[Column],
    make_work: Callable[[], Work],
    *,
    workers: int,
    dry_run: bool,
    run: str,
) -> Summary:
    """Makes the shards that columns lack.

    Args:
        store: The store.
        columns: The columns, which may not exist yet. The last one holds the lock.
        make_work: Returns what builds their units. Called where a shard is missing, before any is created, so
            that its failure leaves nothing behind.
        workers: Number of worker processes; 1 works here.
        dry_run: Writes nothing.
        run: What messages call it, such as "the relabelling".

    Returns:
        A summary like that of `build_shards`.

    Raises:
        DenseCLIError: A shard cannot be made. The same call continues where it stopped.
        Interrupted: SIGINT or SIGTERM stopped it in good order.
    """
    missing = [column.missing() for column in columns]
    todo = sorted(set().union(*missing))
    if not todo:
        if not dry_run:
            # The shards exist, but the files that describe them may be lost.
            _create(store, columns)
            publish_manifests(columns)
        return describe(store, columns, missing, status="up to date")
    if dry_run:
        return describe(store, columns, missing, status="planned")

    described = describe(store, columns, missing, status="built")
    work = make_work()
    _create(store, columns)
    units = (Unit(shard=shard, items=()) for shard in todo)
    # Ray takes seconds to start; in that time one process makes the shards of hundreds of photos.
    alone = workers == 1
    here = Path(columns[-1].url) if fs.is_local(columns[-1].url) else None
    with (
        swept([column.url for column in columns]),
        FolderLock(here, "The column", name=LOCK) if here else nullcontext(),
        nullcontext() if alone else connected(None, workers),
        totals_of(store, todo, columns, run=run) as totals,
    ):
        withdraw_manifests(columns, missing)
        if alone:
            reports: Generator[Report | SetAside] = _run_here(units, work, totals.stop)
        else:
            pool = WorkerPool(work, workers, say=totals.progress.say)
            reports = run_units(units, pool, FAILURES, totals.stop.is_set)
        with closing(reports):
            for report in reports:
                totals.add(report)
    publish_manifests(columns)
    totals.check_set_aside(FAILURES.max_failed_shards)
    return described | totals.summary()


def _create(store: Store, columns: Sequence[Column]) -> None:
    """Creates the columns that do not exist yet, without any shard."""
    for column in columns:
        store.make(column)


def _run_here(units: Iterable[Unit], work: Work, stop: Stop) -> Generator[Report | SetAside]:
    builder = work.builder(threads=1)
    with suppress(Stopped):
        for unit in units:
            yield builder.build(unit, stop)
