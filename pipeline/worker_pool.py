"""Workers: Ray actors that build units, hired when needed, replaced when they die."""

import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from densecli.core.errors import DenseCLIError, Unreachable
from densecli.core.progress import listener
from densecli.pipeline.cluster import gpus_of_worker, machines, total_gpus
from densecli.pipeline.shard_builder import Report, Unit

# A worker reads the photos of one unit while its teachers are busy with another.
UNITS_PER_WORKER = 2
# Seconds: between two looks at the signals; to wait for a worker before saying so, and before giving up; to
# wait for units to be dropped.
POLL, SILENCE, PATIENCE, GRACE = 0.5, 15.0, 1800.0, 30.0


class Builder(Protocol):
    """Builds the shards it is given, UNITS_PER_WORKER at once."""

    def build(self, unit: Unit, stop: Event) -> Report: ...


class Work(Protocol):
    """What workers do: picklable, and a builder of its own for each of them."""

    @property
    def device(self) -> str: ...

    def builder(self, threads: int) -> Builder: ...


class WorkerActor:
    """An actor: it makes its builder, with all its teachers, at the start and keeps it."""

    def __init__(self, work: Work, neighbours: int, threads: int) -> None:
        """neighbours: workers of a node, itself included, that share its processors. threads: of torch."""
        self.work = work
        self.neighbours = neighbours
        self.threads = threads
        self.stopping = Event()
        self._said = ""

    def start(self) -> None:
        listener.set(self._hear)
        torch.set_num_threads(self.threads)
        self.builder = self.work.builder(max(1, len(os.sched_getaffinity(0)) // self.neighbours))

    def build(self, unit: Unit) -> Report:
        listener.set(self._hear)
        self._said = ""
        return self.builder.build(unit, self.stopping)

    def said(self) -> str:
        """What it said last of how far it is: with its start, then with a shard that takes long."""
        return self._said

    def stop(self) -> None:
        """Drops the units at hand; what is being written is finished."""
        self.stopping.set()

    def _hear(self, line: str) -> None:
        self._said = line


@dataclass(eq=False)
class Worker:
    """A worker and the units it has at hand.

    alone: it shall have no other beside the one it has. asked, said: how far it is.
    """

    handle: ActorHandle
    units: set[str] = field(default_factory=set)
    alone: bool = False
    asked: ray.ObjectRef | None = None
    said: str | None = None

    def news(self) -> str | None:
        """What it said last; None where it never answered, for it has no process yet."""
        if self.asked and ray.wait([self.asked], timeout=0)[0]:
            answer, self.asked = _result(self.asked), None
            self.said = None if isinstance(answer, Failure) else answer
        self.asked = self.asked or self.handle.said.remote()
        return self.said


class WorkerPool:
    """The workers of a build: as many as were asked for, or as there is room for."""

    def __init__(
        self,
        work: Work,
        size: int,
        gpus_per_worker: float | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """gpus_per_worker: else all GPUs there are, shared evenly; none where the work is for the CPU. say:
        is told why nothing is built yet, and how far a worker is while no shard is finished for long."""
        gpus = gpus_of_worker(size, total_gpus()) if gpus_per_worker is None else gpus_per_worker
        self.size = size
        self.needs = {"num_cpus": 1, "num_gpus": 0 if work.device == "cpu" else gpus}
        self.starting: dict[ray.ObjectRef, Worker] = {}
        self.ready: list[Worker] = []
        self._say = say
        self._heard, self._said = time.monotonic(), ""
        self._finished = self._heard
        # Two calls more than units: `stop` and `said` must not wait for them.
        self._actor: Any = ray.remote(WorkerActor).options(
            max_concurrency=UNITS_PER_WORKER + 2, scheduling_strategy="SPREAD", **self.needs
        )
        neighbours = math.ceil(size / machines())
        # Ray would give each actor a single thread; those of a node share what one process would use instead.
        self._settings = (ray.put(work), neighbours, max(1, torch.get_num_threads() // neighbours))

    def fill(self) -> None:
        """Hires whoever is missing. Raises DenseCLIError where nobody could start for a long time."""
        for _ in range(self.size - len(self.starting) - len(self.ready)):
            worker = Worker(self._actor.remote(*self._settings))
            self.starting[worker.handle.start.remote()] = worker
        now = time.monotonic()
        if self.ready:
            self._heard = now
            if now - self._finished > SILENCE:
                self._tell(next(filter(None, (worker.news() for worker in self.ready)), ""))
            return
        news = [said for worker in self.starting.values() if (said := worker.news()) is not None]
        needs = f"each needs {self.needs['num_cpus']} CPU and {self.needs['num_gpus']:g} GPU"
        line = next(filter(None, news), "")
        if not line and now - self._heard > SILENCE:
            line = "The workers load their teachers." if news else f"Waiting for a worker to start: {needs}."
        if self._tell(line):
            self._heard = now
        if now - self._heard > PATIENCE:
            raise DenseCLIError(
                f"No worker could start within {PATIENCE:.0f} seconds: {needs}.",
                hint="Add nodes, wait until others have finished, or lower --gpus-per-worker.",
            )

    def _tell(self, line: str) -> bool:
        """Says what is new."""
        if new := bool(line) and line != self._said:
            self._said = line
            self._say(line)
        return new

    def finished(self, worker: Worker, unit: Unit) -> None:
        """It has one unit less at hand."""
        worker.units.remove(unit.shard)
        worker.alone = False
        self._finished = time.monotonic()

    def least_busy(self) -> Worker | None:
        """The worker to give a unit to, if any can take one."""
        free = [hired for hired in self.ready if not hired.alone and len(hired.units) < UNITS_PER_WORKER]
        return min(free, key=lambda hired: len(hired.units), default=None)

    def lose(self, worker: Worker) -> None:
        """Its process is gone, and with it all its units, of which each may say so."""
        if worker in self.ready:
            self.ready.remove(worker)

    def stop(self, running: list[ray.ObjectRef]) -> None:
        """Drops what is under way, without leaving half a file."""
        for worker in self.ready:
            worker.handle.stop.remote()
        if running:
            ray.wait(running, num_returns=len(running), timeout=GRACE)


def run_units(
    units: Iterator[Unit], crew: WorkerPool, max_attempts: int, stopping: Callable[[], bool] = lambda: False
) -> Generator[tuple[Unit, Report]]:
    """Each unit with its report, as they finish, until all are done or `stopping`.

    A unit that fails is tried again, and a worker that dies is replaced; where there is no room for another,
    those that are left do its part. What a dead worker had at hand is tried again one by one, so that no unit
    pays for another. After `max_attempts` failures of one unit, or of workers to start, and at once for a
    DenseCLIError that would only come again (all but Unreachable), the whole run ends with a DenseCLIError.
    However it ends, units that are under way are dropped, and nothing half written is left.
    """
    again, suspects = deque[Unit](), deque[Unit]()
    failures: Counter[str] = Counter()
    running: dict[ray.ObjectRef, tuple[Unit, Worker]] = {}

    def failed(what: str, cause: BaseException) -> None:
        failures[what] += 1
        if failures[what] >= max_attempts:
            raise _gave_up(what, max_attempts, cause) from cause

    def unit_for(worker: Worker) -> Unit | None:
        if suspects and not worker.units:
            worker.alone = True
            return suspects.popleft()
        return again.popleft() if again else next(units, None)

    try:
        while not stopping():
            crew.fill()
            while (worker := crew.least_busy()) and (unit := unit_for(worker)):
                worker.units.add(unit.shard)
                running[worker.handle.build.remote(unit)] = unit, worker
            if crew.ready and not running:
                return
            done, _ = ray.wait([*running, *crew.starting], timeout=POLL)
            for ref in done:
                result = _result(ref)
                if ref in crew.starting:
                    worker = crew.starting.pop(ref)
                    if isinstance(result, Failure):
                        failed("A worker", result.cause)
                    else:
                        crew.ready.append(worker)
                        del failures["A worker"]
                    continue
                unit, worker = running.pop(ref)
                if isinstance(result, Failure) and result.fatal:
                    # A dead worker keeps its units: each of them learns that it was not alone.
                    crew.lose(worker)
                    if len(worker.units) == 1:
                        failed(f"Shard {unit.shard}", result.cause)
                    suspects.append(unit)
                    continue
                crew.finished(worker, unit)
                if isinstance(result, Failure):
                    failed(f"Shard {unit.shard}", result.cause)
                    again.append(unit)
                else:
                    yield unit, result
    finally:
        crew.stop(list(running))


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Of a call. fatal: the worker is gone."""

    cause: BaseException
    fatal: bool


def _result(ref: ray.ObjectRef) -> Any:
    """What the call returned, or its Failure; a DenseCLIError that would only come again is raised."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, DenseCLIError) and not isinstance(error.cause, Unreachable):
            raise error.cause from error
        return Failure(cause=error.cause, fatal=False)
    except RayError as error:
        return Failure(cause=error, fatal=True)


def _gave_up(what: str, attempts: int, cause: BaseException) -> DenseCLIError:
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return DenseCLIError(
        f"{what} failed {attempts} times, the last time with {type(cause).__name__}: {lines[0]}",
        hint="Shards that are finished stay: run the same command again once the cause is gone.",
    )
