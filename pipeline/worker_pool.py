"""The pool of workers: Ray actors, started when needed and replaced when they die."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from densecli.core.errors import DenseCLIError, Unreachable
from densecli.pipeline.cluster import gpus_of_worker, machines, total_gpus
from densecli.pipeline.unit import Unit
from densecli.pipeline.worker import UNITS_PER_WORKER, PackedWork, Work, WorkerActor

SILENCE = 15.0
"""The pool says what it waits for after this many seconds without news."""
START_TIMEOUT = 1800.0
"""The build gives up after this many seconds without news from any starting worker."""
STOP_TIMEOUT = 30.0
"""Seconds that running units have to stop."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A call that failed.

    Attributes:
        cause: The exception.
        fatal: Whether the worker has died.
    """

    cause: BaseException
    fatal: bool


def result_of(call: ray.ObjectRef[Any]) -> Any:
    """Returns the result of a finished call, or a Failure.

    Raises:
        DenseCLIError: The call raised an error that would only occur again (any except Unreachable).
    """
    try:
        return ray.get(call)
    except RayTaskError as error:
        cause: BaseException = getattr(error, "cause", error)
        if isinstance(cause, DenseCLIError) and not isinstance(cause, Unreachable):
            raise cause from error
        return Failure(cause=cause, fatal=False)
    except RayError as error:
        return Failure(cause=error, fatal=True)


@dataclass(eq=False)
class Worker:
    """A worker, as the pool sees it.

    Attributes:
        handle: The actor.
        units: Names of the shards it is building.
        exclusive: Whether it gets no second unit while it has one.
    """

    handle: ActorHandle[Any]
    units: set[str] = field(default_factory=set)
    exclusive: bool = False
    _call: ray.ObjectRef[Any] | None = None
    _message: str | None = None

    def message(self) -> str | None:
        """The worker's last progress line; None if it has no process yet, and so has never answered."""
        if self._call and ray.wait([self._call], timeout=0)[0]:
            result, self._call = result_of(self._call), None
            self._message = None if isinstance(result, Failure) else result
        self._call = self._call or self.handle.message.remote()
        return self._message


class WorkerPool:
    """The workers of a build: as many as requested, or as fit into the cluster."""

    def __init__(
        self,
        work: Work,
        size: int,
        gpus_per_worker: float | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Starts no worker yet.

        Args:
            work: The work.
            size: Number of workers.
            gpus_per_worker: GPUs of each worker, or a fraction of one. None shares all GPUs evenly. Work for
                the CPU gets none.
            say: Prints a progress line: why nothing is built yet, or the progress of a worker while a shard
                takes long.
        """
        gpus = gpus_of_worker(size, total_gpus()) if gpus_per_worker is None else gpus_per_worker
        self.size = size
        self.needs = {"num_cpus": 1, "num_gpus": 0 if work.device == "cpu" else gpus}
        self.starting: dict[ray.ObjectRef[Any], Worker] = {}
        self.ready: list[Worker] = []
        self._say = say
        self._last_line = ""
        self._last_news = self._last_finished = time.monotonic()
        # Two more calls than units, because `stop` and `message` must not wait.
        self._actor: Any = ray.remote(WorkerActor).options(
            max_concurrency=UNITS_PER_WORKER + 2, scheduling_strategy="SPREAD", **self.needs
        )
        neighbours = math.ceil(size / machines())
        # Ray would give each actor one thread; here the workers of a node share the threads of one process.
        threads = max(1, torch.get_num_threads() // neighbours)
        self._settings = (ray.put(PackedWork.pack(work)), neighbours, threads)

    def fill(self) -> None:
        """Starts missing workers, and says what the pool waits for.

        Raises:
            DenseCLIError: No worker could start for a long time.
        """
        for _ in range(self.size - len(self.starting) - len(self.ready)):
            worker = Worker(self._actor.remote(*self._settings))
            self.starting[worker.handle.start.remote()] = worker
        if self.ready:
            self._tell_progress()
        else:
            self._tell_start()

    def _tell_progress(self) -> None:
        """Shows a worker's progress line if no shard has been finished for some time."""
        self._last_news = time.monotonic()
        if self._last_news - self._last_finished > SILENCE:
            self._tell(next(filter(None, (worker.message() for worker in self.ready)), ""))

    def _tell_start(self) -> None:
        """Says why no worker is ready. Raises DenseCLIError after too long without news."""
        messages = [m for worker in self.starting.values() if (m := worker.message()) is not None]
        needs = f"each needs {self.needs['num_cpus']} CPU and {self.needs['num_gpus']:g} GPU"
        silent = time.monotonic() - self._last_news
        line = next(filter(None, messages), "")
        if not line and silent > SILENCE:
            line = "The workers load their teachers." if messages else f"Waiting for a worker: {needs}."
        if self._tell(line):
            self._last_news = time.monotonic()
        elif silent > START_TIMEOUT:
            raise DenseCLIError(
                f"No worker could start within {START_TIMEOUT:.0f} seconds: {needs}.",
                hint="Add nodes, wait until other jobs have finished, or lower --gpus-per-worker.",
            )

    def _tell(self, line: str) -> bool:
        """Prints a line, unless it is empty or the same as the last. Returns whether it did."""
        if new := bool(line) and line != self._last_line:
            self._last_line = line
            self._say(line)
        return new

    def least_busy(self) -> Worker | None:
        """The worker with the fewest units, if any can take one more."""
        free = [w for w in self.ready if not w.exclusive and len(w.units) < UNITS_PER_WORKER]
        return min(free, key=lambda worker: len(worker.units), default=None)

    def finished(self, worker: Worker, unit: Unit) -> None:
        """Notes that a worker has finished a unit."""
        worker.units.remove(unit.shard)
        worker.exclusive = False
        self._last_finished = time.monotonic()

    def lose(self, worker: Worker) -> None:
        """Removes a worker whose process died. Each of its units may report this; only the first counts."""
        if worker in self.ready:
            self.ready.remove(worker)

    def stop(self, running: list[ray.ObjectRef[Any]]) -> None:
        """Stops the running calls. No half-written file is left."""
        for worker in self.ready:
            worker.handle.stop.remote()
        if running:
            ray.wait(running, num_returns=len(running), timeout=STOP_TIMEOUT)
