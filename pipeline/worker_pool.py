"""The pool of workers: Ray actors, started when needed, replaced when they die, and kept off broken nodes."""

import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from ray.exceptions import RayError, RayTaskError

from densecli.core.errors import DenseCLIError
from densecli.pipeline.config import FailureSettings
from densecli.pipeline.failures import Failure, gave_up
from densecli.pipeline.launcher import Launcher
from densecli.pipeline.pool_worker import Node, Outcome, Worker
from densecli.pipeline.unit import Report, Unit, one_line
from densecli.pipeline.worker import UNITS_PER_WORKER, Pulse, Work

SILENCE = 15.0
"""The pool says what it waits for after this many seconds without news."""
START_TIMEOUT = 1800.0
"""The build gives up after this many seconds without news from any starting worker."""
STOP_TIMEOUT = 30.0
"""Seconds that running units have to stop."""
PULSE_SECONDS = 10.0
"""Seconds between two questions to a worker whether it is alive."""
LOST_SECONDS = 45.0
"""A worker whose process has not answered for so long is lost: stopped, or cut off with its node."""
MAX_STEP = 2.0
"""Most seconds that the pool's clock advances between two looks at the workers.

A main process that was itself suspended has not waited for its workers in that time.
"""


class Silent(Exception):
    """A worker gave no answer, or no sign of life."""


_Event = tuple[str, Worker, Unit | None, Future[Any]]


class WorkerPool:
    """The workers of a build: as many as requested, or as fit into the cluster.

    Attributes:
        ready: Workers that have started.
        left_out: Nodes that get no worker any more, by id, with the reason.
        now: Seconds that the pool has been at work.
        say: Prints a progress line.
    """

    def __init__(
        self,
        work: Work,
        size: int,
        gpus_per_worker: float | None = None,
        say: Callable[[str], None] = lambda line: None,
        settings: FailureSettings | None = None,
        *,
        launcher: Launcher | None = None,
    ) -> None:
        """Starts no worker yet.

        Args:
            work: The work.
            size: Number of workers.
            gpus_per_worker: GPUs of each worker, or a fraction of one. None shares all GPUs evenly. Work for
                the CPU gets none.
            say: Prints a progress line: why nothing is built yet, or the progress of a worker while a shard
                takes long.
            settings: After how many failures to start a worker a node is left out, and after how many
                seconds without a sign of life a worker that has units is ended.
            launcher: Starts the workers; None for one on Ray.
        """
        self.size = size
        self.ready: list[Worker] = []
        self.left_out: dict[str, tuple[Node, str]] = {}
        self.now = 0.0
        self._launcher = launcher or Launcher(work, size, gpus_per_worker)
        self._starting: list[Worker] = []
        settings = settings or FailureSettings()
        self._max_attempts, self._stall_timeout = settings.max_attempts, settings.stall_timeout
        self._failed_starts: Counter[str] = Counter()
        # Workers that can take a unit, by the number of units that they have.
        self._free: list[dict[Worker, None]] = [{} for _ in range(UNITS_PER_WORKER)]
        self._ever_ready = False
        # Asked for again from time to time: nodes come and go.
        self._hosts: set[str] | None = None
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._outcomes: deque[Outcome] = deque()
        self.say = say
        self._last_line = ""
        self._last_look, self._next_pulse = time.monotonic(), 0.0
        self._last_news = self._last_finished = self.now

    def fill(self) -> None:
        """Starts missing workers, ends those that gave no sign of life, and says what the pool waits for.

        Raises:
            DenseCLIError: No worker could start for a long time, or the cluster is gone.
        """
        look = time.monotonic()
        self.now += min(look - self._last_look, MAX_STEP)
        self._last_look = look
        for _ in range(self.size - len(self._starting) - len(self.ready)):
            worker = Worker(self._launcher.start(self.left_out))
            self._starting.append(worker)
            self._call("where", worker, worker.handle.where.remote())
            self._call("start", worker, worker.handle.start.remote())
        if self.now >= self._next_pulse:
            self._next_pulse = self.now + PULSE_SECONDS
            self._launcher.check()
            self._hosts = None
            for worker in [*self._starting, *self.ready]:
                self._ask_for_pulse(worker)
        if self.ready:
            self._last_news = self.now
            if self._last_news - self._last_finished > SILENCE:
                self._tell(next((worker.message for worker in self.ready if worker.message), ""))
        else:
            self._tell_start()

    def _ask_for_pulse(self, worker: Worker) -> None:
        """Asks a worker for its pulse, and ends one that is lost or stalled."""
        # A worker without a node waits for room, and has no process to ask.
        if worker.asked is None:
            worker.asked = self.now
            self._call("pulse", worker, worker.handle.pulse.remote())
        elif worker.node and self.now - worker.asked >= LOST_SECONDS:
            self._died(worker, Silent(f"Its process has not answered for {LOST_SECONDS:.0f} seconds."))
            return
        if worker.units and self.now - worker.last_sign >= self._stall_timeout:
            silent = f"There was no sign of life for {self._stall_timeout:g} seconds (--stall-timeout)."
            self._died(worker, Silent(silent))

    def _tell_start(self) -> None:
        """Says why no worker is ready. Raises DenseCLIError after too long without news."""
        there = [worker for worker in self._starting if worker.node]
        needs = f"each needs {self._launcher.cpus} CPU and {self._launcher.gpus:g} GPU"
        silent = self.now - self._last_news
        line = next((worker.message for worker in there if worker.message), "")
        if not line and silent > SILENCE:
            line = "The workers load their teachers." if there else f"Waiting for a worker: {needs}."
        if self._tell(line):
            self._last_news = self.now
        elif silent > START_TIMEOUT:
            raise DenseCLIError(
                f"No worker could start within {START_TIMEOUT:.0f} seconds: {needs}.",
                hint="Add nodes, wait until other jobs have finished, or lower --gpus-per-worker.",
            )

    def _tell(self, line: str) -> bool:
        """Prints a line, unless it is empty or the same as the last. Returns whether it did."""
        if new := bool(line) and line != self._last_line:
            self._last_line = line
            self.say(line)
        return new

    def free(
        self,
        avoid: Collection[str] = (),
        *,
        strictly: bool = False,
        besides: Worker | None = None,
        idle: bool = False,
    ) -> Worker | None:
        """The worker with the fewest units, if any can take one more.

        Args:
            avoid: Nodes to keep away from.
            strictly: Whether to do so even if no worker is ready on another node, busy or not.
            besides: A worker that is not meant.
            idle: Whether it must have no unit at all.
        """
        if not (avoid or besides or idle):
            # Hundreds of workers are not looked through for every shard.
            return next((worker for free in self._free for worker in free), None)
        workers = self.ready
        if avoid:
            others = [worker for worker in workers if not (worker.node and worker.node.id in avoid)]
            workers = others if others or strictly else workers
        room = 1 if idle else UNITS_PER_WORKER
        free = [w for w in workers if len(w.units) < room and not w.exclusive and w is not besides]
        return min(free, key=lambda worker: len(worker.units), default=None)

    def has_other_nodes(self, nodes: Collection[str]) -> bool:
        """Whether workers could run on other nodes than these, if there is room."""
        if self._hosts is None:
            self._hosts = self._launcher.hosts()
        return bool(self._hosts - self.left_out.keys() - set(nodes))

    def give(self, worker: Worker, unit: Unit, *, alone: bool = False) -> None:
        """Hands a unit to a worker.

        Args:
            worker: A free worker.
            unit: The unit.
            alone: Whether the worker gets no second unit while it has this one.
        """
        if not worker.units:
            worker.last_sign = self.now
        worker.units[unit.shard] = unit
        worker.exclusive = alone
        self._sort(worker)
        self._call("build", worker, worker.handle.build.remote(pickle.dumps(unit)), unit)

    def drop(self, worker: Worker, unit: Unit) -> None:
        """Tells a worker that a unit is not needed any more. Its outcome comes nevertheless."""
        worker.handle.drop.remote(unit.shard)

    def outcomes(self, timeout: float) -> list[Outcome]:
        """Returns the outcomes of units that have ended, after at most `timeout` seconds.

        Raises:
            DenseCLIError: There is no node left on which workers can start, or the store is full.
        """
        with suppress(Empty):
            # Those that died outside of a call wait already.
            self._handle(*self._events.get(timeout=0 if self._outcomes else timeout))
            while True:
                self._handle(*self._events.get_nowait())
        found = list(self._outcomes)
        self._outcomes.clear()
        return found

    def leave_out(self, node: Node, cause: BaseException, *, why: str) -> None:
        """Ends the workers of a node and starts none there any more.

        Args:
            node: The node.
            cause: The last failure there.
            why: What failed there, as the begin of a sentence but for its first letter.

        Raises:
            DenseCLIError: No other node could run a worker, or no worker has started anywhere yet and as
                many nodes as a shard has attempts are left out: the cause is not the nodes.
        """
        reason = f"{why}, the last time with {one_line(cause)}"
        self.left_out[node.id] = node, reason
        systematic = not self._ever_ready and len(self.left_out) >= self._max_attempts
        if systematic or not self._launcher.hosts() - self.left_out.keys():
            raise gave_up(f"{why[0].upper()}{why[1:]} (node {node})", cause) from cause
        self.say(f"The node {node} is left out: {reason}")
        for worker in [w for w in (*self._starting, *self.ready) if w.node and w.node.id == node.id]:
            self._died(worker, cause)

    def named_left_out(self) -> list[str]:
        """The nodes that are left out, each with its reason."""
        return [f"{node}: {reason}" for node, reason in self.left_out.values()]

    def stop(self) -> None:
        """Stops the running units. No half-written file is left."""
        for worker in self.ready:
            worker.handle.stop.remote()
        wait([call for worker in self.ready for call in worker.calls], STOP_TIMEOUT)

    def _call(self, kind: str, worker: Worker, call: Any, unit: Unit | None = None) -> None:
        """Queues the result of a call, in a thread of Ray's, as soon as it is there."""
        future: Future[Any] = call.future()
        if unit:
            worker.calls.add(future)
        future.add_done_callback(partial(self._queue, kind, worker, unit))

    def _queue(self, kind: str, worker: Worker, unit: Unit | None, future: Future[Any]) -> None:
        self._events.put((kind, worker, unit, future))

    def _handle(self, kind: str, worker: Worker, unit: Unit | None, future: Future[Any]) -> None:
        worker.calls.discard(future)
        if not worker.alive:
            # It was given up; whatever it still had to say comes too late.
            return
        cause: BaseException | None = future.exception()
        if isinstance(cause, RayTaskError):
            cause = getattr(cause, "cause", None) or cause
        elif isinstance(cause, RayError):
            self._died(worker, cause)
            return
        if kind == "where" and cause is None:
            worker.node, worker.asked = Node(*future.result()), None
            if worker.node.id in self.left_out:
                self._died(worker, Silent("Its node is left out."))
        elif kind == "pulse" and cause is None:
            self._note_pulse(worker, future.result())
        elif kind == "start":
            self._started(worker, cause)
        elif unit:
            self._finished(
                worker, unit, pickle.loads(future.result()) if cause is None else Failure.of(cause)
            )

    def _note_pulse(self, worker: Worker, pulse: Pulse) -> None:
        worker.asked, worker.message = None, pulse.message
        if pulse.signs != worker.signs:
            worker.signs, worker.last_sign = pulse.signs, self.now

    def _started(self, worker: Worker, cause: BaseException | None) -> None:
        if cause is not None:
            self._died(worker, cause)
            return
        self._starting.remove(worker)
        self.ready.append(worker)
        self._sort(worker)
        self._ever_ready = True
        self._failed_starts.pop(worker.node.id if worker.node else "", None)

    def _finished(self, worker: Worker, unit: Unit, result: Report | Failure) -> None:
        del worker.units[unit.shard]
        worker.exclusive = False
        self._sort(worker)
        worker.last_sign = self._last_finished = self.now
        self._outcomes.append(Outcome(worker, (unit,), result))

    def _sort(self, worker: Worker) -> None:
        """Notes how many more units a worker can take."""
        for free in self._free:
            free.pop(worker, None)
        if worker.alive and not worker.exclusive and len(worker.units) < UNITS_PER_WORKER:
            self._free[len(worker.units)][worker] = None

    def _died(self, worker: Worker, cause: BaseException) -> None:
        """Removes a worker that died, failed to start, or is to be ended. Only the first report counts."""
        self._launcher.end(worker.handle)
        worker.alive = False
        self._sort(worker)
        if worker in self.ready:
            self.ready.remove(worker)
            if worker.units:
                self._outcomes.append(
                    Outcome(worker, tuple(worker.units.values()), Failure(cause=cause), died=True)
                )
        elif worker in self._starting:
            self._starting.remove(worker)
            self._failed_to_start(worker, cause)

    def _failed_to_start(self, worker: Worker, cause: BaseException) -> None:
        node = worker.node or self._launcher.node_of(worker.handle)
        if node and node[0] in self.left_out:
            return
        self._failed_starts[node[0] if node else ""] += 1
        failures = self._failed_starts[node[0] if node else ""]
        if node and (Failure.of(cause).again or failures >= self._max_attempts):
            self.leave_out(Node(*node), cause, why=f"a worker failed to start {_times(failures)}")
        elif failures >= self._max_attempts and not self.ready:
            raise gave_up(f"A worker failed to start {_times(failures)}", cause) from cause


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
