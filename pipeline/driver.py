"""The driver of build-shards: a local Ray, an actor for each worker, one unit in flight in each."""

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any, Protocol

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from pipeline.build import Report, Unit
from pipeline.config import BuildConfig
from pipeline.job import Job, missing_shards, prepare, unit_of
from pipeline.sources import Source
from shards.errors import DenseCLIError
from shards.progress import Progress
from shards.store import Column

__all__ = ["BuildConfig", "build_shards"]

# Units and reports pass through Ray and are small: the photos never do. Ray's own minimum is 75 MiB.
OBJECT_STORE_BYTES = 80 * 2**20


def build_shards(config: BuildConfig) -> dict[str, Any]:
    """Build whatever is missing of the store that `config` describes; what is there is not touched.

    Returns a summary: `status` ("built", "up to date" or "planned"), `store`, `columns` (kind, name, id,
    shards, and those missing before), and of a build `shards`, `samples` in them, `skipped` photos by reason,
    `seconds` by stage and in all, `images_per_second`. Raises DenseCLIError; the same call afterwards goes on
    where it stopped.
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
    with closing(Progress(total, "images")) as progress, local_ray(config.workers):
        units = (unit_of(source, shard, config.shard_size) for shard in todo)
        for unit, report in run_units(units, Crew(job, config.workers), config.max_attempts):
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
    elapsed = time.monotonic() - start
    return {
        "shards": len(todo),
        "samples": samples,
        "skipped": dict(skipped),
        "seconds": {**{stage: round(s, 3) for stage, s in seconds.items()}, "total": round(elapsed, 3)},
        "images_per_second": round(samples / elapsed, 2),
    }


class Builder(Protocol):
    """Builds the shards it is given."""

    def build(self, unit: Unit) -> Report: ...


class Work(Protocol):
    """What the workers do: picklable, and a builder of its own for each of them."""

    @property
    def device(self) -> str: ...

    def builder(self) -> Builder: ...


class Worker:
    """An actor: it makes its builder, with all its teachers, with the first unit and keeps it."""

    def __init__(self, job: Work, threads: int) -> None:
        self.job = job
        self.threads = threads

    @cached_property
    def builder(self) -> Builder:
        torch.set_num_threads(self.threads)
        return self.job.builder()

    def build(self, unit: Unit) -> Report:
        return self.builder.build(unit)


class Crew:
    """Where workers come from."""

    def __init__(self, job: Work, size: int) -> None:
        self.size = size
        self._job = ray.put(job)
        # Ray would give each actor a single thread; the workers share what one process would use instead.
        self._threads = max(1, torch.get_num_threads() // size)
        gpus = 1 / size if job.device.startswith("cuda") else 0
        self._worker: Any = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)

    def hire(self) -> ActorHandle:
        """A new worker."""
        return self._worker.remote(self._job, self._threads)


def run_units(units: Iterator[Unit], crew: Crew, max_attempts: int) -> Iterator[tuple[Unit, Report]]:
    """Each unit with its report, as they finish; at most one in flight a worker.

    A unit that fails is tried again, on a new worker if its own died, up to `max_attempts` times; then, and
    at once for a DenseCLIError, which would only come again, the whole run stops with a DenseCLIError.
    """
    again: deque[Unit] = deque()
    failures: Counter[str] = Counter()
    idle: list[ActorHandle] = []
    running: dict[ray.ObjectRef, tuple[Unit, ActorHandle]] = {}
    while True:
        while len(running) < crew.size and (unit := again.popleft() if again else next(units, None)):
            worker = idle.pop() if idle else crew.hire()
            running[worker.build.remote(unit)] = unit, worker
        if not running:
            return
        (done, *_), _ = ray.wait(list(running))
        unit, worker = running.pop(done)
        try:
            report = ray.get(done)
        except (RayActorError, RayTaskError) as error:
            cause = getattr(error, "cause", error)
            if isinstance(cause, DenseCLIError):
                raise cause from error
            failures[unit.shard] += 1
            if failures[unit.shard] >= max_attempts:
                raise _gave_up(unit, max_attempts, cause) from error
            again.append(unit)
            if isinstance(error, RayTaskError):
                idle.append(worker)
        else:
            idle.append(worker)
            yield unit, report


def _gave_up(unit: Unit, attempts: int, cause: BaseException) -> DenseCLIError:
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return DenseCLIError(
        f"Shard {unit.shard} failed {attempts} times, the last time with {type(cause).__name__}: {lines[0]}",
        hint="Shards that are finished stay: run the same command again once the cause is gone.",
    )


@contextmanager
def local_ray(workers: int) -> Iterator[None]:
    """Ray on this machine, as long as the block lasts: no dashboard, no usage report."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=workers,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()
