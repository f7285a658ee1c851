"""The driver of build-shards: what is missing, the workers that make it, and what came of it."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.core.signals import Stop
from densecli.pipeline.build_request import BuildRequest, prepare, unit_of
from densecli.pipeline.cluster import connected
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.shard_builder import Report
from densecli.pipeline.sources import Source, Unreadable
from densecli.pipeline.summary import Reports, Summary, carried_out, tallied
from densecli.pipeline.worker_pool import WorkerPool, run_units
from densecli.shards.geometry import Canvas

__all__ = ["BuildConfig", "build_shards"]


def build_shards(config: BuildConfig) -> dict[str, Any]:
    """Build whatever is missing of the store that `config` describes; what is there is not touched.

    Returns the summary of `carried_out` and `tallied`. Raises DenseCLIError; the same call afterwards goes on
    where it stopped. SIGINT and SIGTERM end it in good order, as Interrupted.
    """
    job, source = prepare(config)
    return carried_out(
        job.store,
        job.columns(),
        dry_run=config.dry_run,
        make=job.make,
        build=lambda todo: _build(config, job, source, todo),
    )


def _build(config: BuildConfig, job: BuildRequest, source: Source, todo: list[str]) -> Summary:
    def reports(stop: Stop, progress: Progress) -> Reports:
        units = (unit_of(source, shard, config.shard_size) for shard in todo)
        work = _witnessed(job, source) if config.ray_address else job
        crew = WorkerPool(work, config.workers, config.gpus_per_worker, progress.say)
        return run_units(units, crew, config.max_attempts, stop.is_set)

    with connected(config.ray_address, config.workers):
        return tallied(job.store, todo, reports, verb="the build", watch=FailureBudget(config.max_unreadable))


class FailureBudget:
    """With photos in a row that cannot be read, counted over whole shards."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0

    def __call__(self, skipped: Counter[str], report: Report) -> None:
        """Raises DenseCLIError when it is at an end. skipped: all so far, by reason."""
        self.in_a_row = 0 if report.samples else self.in_a_row + sum(report.skipped.values())
        if self.in_a_row >= self.limit:
            reasons = ", ".join(f"{n} {reason}" for reason, n in skipped.most_common())
            raise DenseCLIError(
                f"{self.in_a_row} photos in a row could not be read ({reasons}).",
                hint="Check the photos, or allow more with --max-unreadable.",
            )


def _witnessed(job: BuildRequest, source: Source) -> BuildRequest:
    """The job for machines that need not see what this one sees: the store is made, and a photo that can be
    read here is named, so that no node skips photos out of its reach or builds into its own folder."""
    job.make()
    for item in source.items[:100]:
        with suppress(Unreadable):
            source.load(item, Canvas(job.store.canvas))
            return replace(job, witness=item)
    return job
