"""Builds shards: prepares the request, finds the missing shards, runs the units and adds up their reports."""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry
from densecli.core.leftovers import swept
from densecli.core.progress import listener
from densecli.core.tables import plain
from densecli.pipeline.build_request import BuildRequest, part_of, prepare, unit_of
from densecli.pipeline.claims import Claims, shared
from densecli.pipeline.cluster import Connect, connected, gpus_at, workers_on
from densecli.pipeline.cluster_lister import lister_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.failures import SetAside
from densecli.pipeline.manifests import publish_manifests, withdraw_manifests
from densecli.pipeline.run_units import run_units
from densecli.pipeline.sources import Source, Unreadable
from densecli.pipeline.summary import Summary, describe, totals_of
from densecli.pipeline.unit import Report
from densecli.pipeline.worker import UNITS_PER_WORKER
from densecli.pipeline.worker_pool import WorkerPool
from densecli.shards.geometry import Canvas
from densecli.shards.info import remember_passed_over
from densecli.shards.store import Store, shard_name

__all__ = ["BuildConfig", "build_shards"]

NOTHING_KEPT = "The same command starts again. In a new store, a smaller --shard-size keeps more."
"""Hint for a build that was stopped in its first shard."""


def build_shards(
    config: BuildConfig, tars: Mapping[str, Entry] | None = None, connect: Connect | None = None
) -> Summary:
    """Builds whatever a store lacks; finished shards are not touched.

    Args:
        config: What to build.
        tars: The only tars to take photos of; None for all.
        connect: Connects to Ray; None for `connected`.

    Returns:
        The columns as in `describe`, with `status` "built", "up to date" or "planned" (a dry run), and what
        the listing has `passed_over`, as in `PassedOver.document`, `proposals`, as in `check_proposals`, and
        `listed`, as in `Source`.
        A build also has the sums of `Totals.summary`, and the nodes that were `left_out`.

    Raises:
        DenseCLIError: The build cannot start or continue, or no photo could be used. After a failure in the
            middle, the same call continues where it stopped.
        ShardsSetAside: Some shards failed too often.
        Interrupted: SIGINT or SIGTERM stopped it in good order.
    """
    connect = connect or connected
    request, source = prepare(config, tars, lister_of(config, connect))
    columns = request.columns()
    part = range(*part_of(config.part, len(request.store.shard_names)))
    missing = [[shard for shard in column.missing() if int(shard) in part] for column in columns]
    todo = sorted(set().union(*missing))
    passed = source.passed.document()
    listing = {"passed_over": passed, "proposals": dict(request.proposals), "listed": source.listed}
    if not todo:
        if not config.dry_run:
            # The shards exist, but the files that describe them may be lost.
            request.make_columns()
            remember_passed_over(request.store, passed)
            publish_manifests(columns)
        check_some_photo(request.store)
        return describe(request.store, columns, missing, status="up to date") | listing
    if config.dry_run:
        return describe(request.store, columns, missing, status="planned") | listing

    workers = config.workers or _default_workers(config, request)
    described = describe(request.store, columns, missing, status="built") | listing
    remember_passed_over(request.store, passed)
    budget = FailureBudget(config.max_unreadable)
    with (
        swept([column.url for column in columns]),
        connect(config.ray_address, workers),
        closing(
            Claims(request.store.root, [c.key for c in columns], len(request.store.shard_names))
        ) as claims,
        totals_of(request.store, todo, columns, run="the build", if_nothing_kept=NOTHING_KEPT) as totals,
    ):

        def stopping() -> bool:
            claims.beat()
            return totals.stop.is_set()

        numbers = shared(
            claims,
            [int(shard) for shard in todo],
            lambda: {int(shard) for column in columns for shard in column.missing()},
            slots=workers * UNITS_PER_WORKER,
            made=totals.add_elsewhere,
            say=totals.progress.say,
        )
        units = (None if n is None else unit_of(source, shard_name(n), config.shard_size) for n in numbers)
        work = _with_probe(request, source) if config.ray_address else request
        withdraw_manifests(columns, missing)
        pool = WorkerPool(work, workers, config.gpus_per_worker, totals.progress.say, config)
        with closing(run_units(units, pool, config, stopping)) as finished:
            for report in finished:
                totals.add(report)
                budget.check(report, totals.skipped)
    publish_manifests(columns)
    totals.check_set_aside(config.max_failed_shards)
    check_some_photo(request.store)
    return described | totals.summary() | {"left_out": pool.named_left_out()}


def _default_workers(config: BuildConfig, request: BuildRequest) -> int:
    """As many workers as use all GPUs, which is said."""
    gpus = gpus_at(config.ray_address, request.device)
    workers = workers_on(gpus, config.gpus_per_worker)
    if gpus > 1:
        listener.get()(f"The build has {workers} workers on {gpus} GPUs; --workers sets another number.")
    return workers


class FailureBudget:
    """Ends a build after too many unreadable photos in a row, counted in whole shards."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_a_row = 0

    def check(self, report: Report | SetAside, skipped: Counter[str]) -> None:
        """Counts the unreadable photos of a shard.

        Args:
            report: The report on the shard.
            skipped: Unreadable photos of the build so far, by reason.

        Raises:
            DenseCLIError: The budget is used up.
        """
        if isinstance(report, SetAside):
            return
        self._in_a_row = 0 if report.samples else self._in_a_row + sum(report.skipped.values())
        if self._in_a_row >= self._limit:
            reasons = ", ".join(f"{n} {reason}" for reason, n in skipped.most_common())
            raise DenseCLIError(
                f"{self._in_a_row} photos in a row could not be read ({reasons}).",
                hint="Check the photos, or allow more with --max-unreadable.",
            )


def check_some_photo(store: Store) -> None:
    """Raises DenseCLIError for a complete store that holds no photo, with the reasons."""
    skipped = Counter[str]()
    # The first shard that holds a photo ends this, so it reads one receipt of nearly every store.
    for shard in store.shard_names:
        receipt = store.images.receipt(shard)
        if receipt is None or receipt.samples:
            return
        skipped.update(receipt.skipped)
    reasons = ", ".join(f"{n} {plain(reason)}" for reason, n in skipped.most_common())
    raise DenseCLIError(
        f"The store {fs.shown(store.root)} holds no "
        f"photo: none of the {sum(store.shard_sizes)} listed could be used "
        f"({reasons}).",
        hint="Mend the photos or choose others with --data, delete this store and build it again.",
    )


def _with_probe(request: BuildRequest, source: Source) -> BuildRequest:
    """Prepares a request for other machines: creates the store, and names a photo that can be read here.

    Nodes that cannot read this store and photo are refused. Otherwise they might build into a folder of their
    own, or skip photos that only they cannot reach.
    """
    request.make_columns()
    for item in source.items[:100]:
        with suppress(Unreadable):
            source.load(item, Canvas(request.store.canvas))
            return replace(request, probe=item)
    return request
