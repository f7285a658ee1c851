"""The driver of build-shards: what is missing, the workers that make it, and what came of it."""

import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from pipeline.cluster import connected
from pipeline.config import BuildConfig
from pipeline.crew import Crew, run_units
from pipeline.job import Job, missing_shards, prepare, unit_of
from pipeline.sources import Source, Unreadable
from shards.errors import DenseCLIError, Interrupted
from shards.geometry import Canvas
from shards.progress import Progress
from shards.signals import heeding_signals
from shards.store import Column

__all__ = ["BuildConfig", "build_shards"]


def build_shards(config: BuildConfig) -> dict[str, Any]:
    """Build whatever is missing of the store that `config` describes; what is there is not touched.

    Returns a summary: `status` ("built", "up to date" or "planned"), `store`, `columns` (kind, name, id,
    shards, and those missing before), and of a build `shards`, `samples` in them, `skipped` photos by reason,
    `seconds` by stage and in all, `images_per_second`. Raises DenseCLIError; the same call afterwards goes on
    where it stopped. SIGINT and SIGTERM end it in good order, as Interrupted.
    """
    job, source = prepare(config)
    columns = job.columns()
    todo = missing_shards(columns)
    summary: dict[str, Any] = {
        "status": "up to date",
        "store": job.store.root,
        "columns": [described(column) for column in columns],
    }
    if todo and config.dry_run:
        summary["status"] = "planned"
    elif todo:
        summary |= {"status": "built", **_run(config, job, source, todo)}
    elif not config.dry_run:
        # The shards are there, but what describes them may have been lost.
        job.make()
    return summary


def described(column: Column) -> dict[str, Any]:
    """A column in a summary: kind, name, id, shards, and those that are missing."""
    return {
        "kind": column.kind,
        "name": column.name,
        "id": column.id,
        "shards": len(column.shard_names),
        "missing": len(column.missing()),
    }


def _run(config: BuildConfig, job: Job, source: Source, todo: list[str]) -> dict[str, Any]:
    start = time.monotonic()
    samples, skipped, seconds = 0, Counter[str](), Counter[str]()
    unreadable_in_a_row = 0
    total = sum(job.store.shard_sizes[int(shard)] for shard in todo)
    units = (unit_of(source, shard, config.shard_size) for shard in todo)
    with (
        connected(config.ray_address, config.workers),
        heeding_signals() as stop,
        closing(Progress(total, "images")) as progress,
        closing(
            run_units(
                units,
                Crew(
                    _witnessed(job, source) if config.ray_address else job,
                    config.workers,
                    config.gpus_per_worker,
                ),
                config.max_attempts,
                lambda: stop.signal is not None,
            )
        ) as finished,
    ):
        for unit, report in finished:
            progress.advance(len(unit.items))
            samples += report.samples
            skipped.update(report.skipped)
            seconds.update(report.seconds)
            unreadable_in_a_row += sum(report.skipped.values())
            if report.samples:
                unreadable_in_a_row = 0
            if unreadable_in_a_row >= config.max_unreadable:
                reasons = ", ".join(f"{n} {reason}" for reason, n in skipped.most_common())
                raise DenseCLIError(
                    f"{unreadable_in_a_row} photos in a row could not be read ({reasons}).",
                    hint="Check the photos, or allow more with --max-unreadable.",
                )
    if stop.signal:
        raise Interrupted(
            stop.signal,
            f"{stop.signal.name} stopped the build; {samples} of {total} photos were done.",
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


def _witnessed(job: Job, source: Source) -> Job:
    """The job for machines that need not see what this one sees: the store is made, and a photo that can be
    read here is named, so that no node skips photos out of its reach or builds into its own folder."""
    job.make()
    for item in source.items[:100]:
        with suppress(Unreadable):
            source.load(item, Canvas(job.store.canvas))
            return replace(job, witness=item)
    return job
