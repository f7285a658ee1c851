"""The driver of build-shards: what is missing, the workers that make it, and what came of it."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pipeline.build import Report
from pipeline.cluster import connected
from pipeline.config import BuildConfig
from pipeline.crew import Crew, run_units
from pipeline.job import Job, prepare, unit_of
from pipeline.sources import Source, Unreadable
from pipeline.tally import Reports, Summary, carried_out, tallied
from shards.errors import DenseCLIError
from shards.geometry import Canvas
from shards.progress import Progress
from shards.signals import Stop

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


def _build(config: BuildConfig, job: Job, source: Source, todo: list[str]) -> Summary:
    def reports(stop: Stop, progress: Progress) -> Reports:
        units = (unit_of(source, shard, config.shard_size) for shard in todo)
        work = _witnessed(job, source) if config.ray_address else job
        crew = Crew(work, config.workers, config.gpus_per_worker, progress.say)
        return run_units(units, crew, config.max_attempts, stop.is_set)

    with connected(config.ray_address, config.workers):
        return tallied(job.store, todo, reports, verb="the build", watch=Patience(config.max_unreadable))


class Patience:
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


def _witnessed(job: Job, source: Source) -> Job:
    """The job for machines that need not see what this one sees: the store is made, and a photo that can be
    read here is named, so that no node skips photos out of its reach or builds into its own folder."""
    job.make()
    for item in source.items[:100]:
        with suppress(Unreadable):
            source.load(item, Canvas(job.store.canvas))
            return replace(job, witness=item)
    return job
