"""Hands units to the workers of a pool until all are built or set aside, and retries those that fail."""

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from densecli.pipeline.config import FailureSettings
from densecli.pipeline.failures import Failure, NodeFailures, SetAside
from densecli.pipeline.pool_worker import Outcome, Worker
from densecli.pipeline.unit import Report, Unit
from densecli.pipeline.worker_pool import WorkerPool

POLL_SECONDS = 0.5
"""Seconds between two checks for signals."""
SLOW_SECONDS = 60.0
"""No shard is slow before this many seconds."""
ELSEWHERE_SECONDS = 300.0
"""A shard that failed waits for so long for a worker on another node, if the cluster has one."""
TIMED = 8
"""Number of finished shards after which their median is known; it is that of the last hundred."""


def run_units(
    units: Iterator[Unit | None],
    pool: WorkerPool,
    settings: FailureSettings,
    stopping: Callable[[], bool] = lambda: False,
) -> Generator[Report | SetAside]:
    """Yields a report on each unit, in the order in which they finish, then the shards that were set aside.

    A unit that fails is retried, on another node if there is one. A worker that dies is replaced; if there is
    no room for another, the others do its work. The units of a dead worker are retried one at a time, so that
    a unit that kills its worker does not count against others. A node whose failures do not occur elsewhere
    is left out, and what failed there does not count either. A unit that takes many times the median is given
    to a second worker; the first to publish wins. However the run ends, running units are stopped and nothing
    half-written is left.

    Args:
        units: The units to build; None stands for a unit that cannot be had yet.
        pool: The workers.
        settings: What may fail how often. The run ends early once more than `max_failed_shards` are set
            aside.
        stopping: Whether to end the run early; called several times a second.

    Raises:
        DenseCLIError: There is no node left on which workers can start, or the store is full.
    """
    run = _Run(units, pool, settings)
    try:
        while not (stopping() or run.over):
            pool.fill()
            run.hand_out()
            for outcome in pool.outcomes(POLL_SECONDS):
                if report := run.note(outcome):
                    yield report
        yield from run.set_aside.values()
    finally:
        pool.stop()


class _Attempt(NamedTuple):
    node: str
    failure: Failure


@dataclass(eq=False)
class _Running:
    """A unit under way, and since when its workers have it: one, or two if it is slow."""

    unit: Unit
    since: dict[Worker, float] = field(default_factory=dict)


class _Run:
    """Which units are under way, to be tried again, or set aside."""

    def __init__(self, units: Iterator[Unit | None], pool: WorkerPool, settings: FailureSettings) -> None:
        self.set_aside: dict[str, SetAside] = {}
        self._units = units
        self._pool = pool
        self._settings = settings
        self._exhausted = False
        self._retries: deque[Unit] = deque()
        # Units that may have killed their worker: they are tried alone.
        self._suspects: deque[Unit] = deque()
        self._running: dict[str, _Running] = {}
        self._failed: dict[str, Unit] = {}
        self._attempts: defaultdict[str, list[_Attempt]] = defaultdict(list)
        self._failed_at: dict[str, float] = {}
        self._nodes = NodeFailures(settings.max_attempts)
        self._seconds: deque[float] = deque(maxlen=100)
        self._next_look = 0.0

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do, or too much has failed."""
        left = self._running or self._retries or self._suspects or not self._exhausted
        return not left or len(self.set_aside) > self._settings.max_failed_shards

    def hand_out(self) -> None:
        """Gives units to the workers that are free."""
        for queue, alone in ((self._suspects, True), (self._retries, False)):
            for _ in range(len(queue)):
                unit = queue.popleft()
                tried = self._tried(unit.shard)
                patient = self._pool.now - self._failed_at.get(unit.shard, 0) < ELSEWHERE_SECONDS
                elsewhere = patient and self._pool.has_other_nodes(tried)
                if worker := self._pool.free(tried, strictly=elsewhere, idle=alone):
                    self._give(worker, unit, alone=alone)
                else:
                    queue.append(unit)
        while not self._exhausted and (worker := self._pool.free()):
            try:
                new = next(self._units)
            except StopIteration:
                self._exhausted = True
                break
            if new is None:
                break
            self._give(worker, new)
        if self._pool.now >= self._next_look:
            self._next_look = self._pool.now + 1
            self._help_slow()

    def note(self, outcome: Outcome) -> Report | None:
        """Takes in an outcome, and returns the report if it is the first on its shard."""
        worker, units, result, died = outcome
        node = worker.node.id if worker.node else ""
        if isinstance(result, Report):
            (unit,) = units
            running = self._running.pop(unit.shard, None)
            if running is None:
                return None
            self._seconds.append(self._pool.now - running.since.pop(worker))
            for other in running.since:
                self._pool.drop(other, unit)
            for guilty in self._nodes.built(unit.shard, node):
                self._leave_out(guilty)
            return result
        lost = [unit for unit in units if self._lost(unit, worker)]
        if node in self._pool.left_out:
            self._retries += lost
            return None
        self._nodes.failed(node, [unit.shard for unit in lost])
        for unit in lost:
            if not died or len(units) == 1:
                self._attempts[unit.shard].append(_Attempt(node, result))
                self._failed_at[unit.shard] = self._pool.now
            self._try_again(unit, alone=died)
        return None

    def _give(self, worker: Worker, unit: Unit, *, alone: bool = False) -> None:
        running = self._running.setdefault(unit.shard, _Running(unit))
        running.since[worker] = self._pool.now
        self._pool.give(worker, unit, alone=alone)

    def _lost(self, unit: Unit, worker: Worker) -> bool:
        """Whether nobody is building a unit any more, now that this worker is not."""
        if not (running := self._running.get(unit.shard)):
            return False
        running.since.pop(worker, None)
        if running.since:
            return False
        del self._running[unit.shard]
        return True

    def _tried(self, shard: str) -> set[str]:
        return {attempt.node for attempt in self._attempts[shard]} if shard in self._attempts else set()

    def _try_again(self, unit: Unit, *, alone: bool) -> None:
        """Queues a unit again, or sets it aside."""
        attempts = [each for each in self._attempts[unit.shard] if each.node not in self._pool.left_out]
        hopeless = any(each.failure.again for each in attempts)
        if len(attempts) < self._settings.max_attempts and not (
            hopeless and not self._pool.has_other_nodes(self._tried(unit.shard))
        ):
            (self._suspects if alone else self._retries).append(unit)
            return
        failed = SetAside.of(unit, len(attempts), attempts[-1].failure.cause)
        self._failed[unit.shard], self.set_aside[unit.shard] = unit, failed
        self._nodes.gave_up(unit.shard)
        times = "once" if len(attempts) == 1 else f"{len(attempts)} times"
        self._pool.say(f"The shard {unit.shard} is set aside: it failed {times}. {failed.reason}")

    def _leave_out(self, node: str) -> None:
        """Leaves a node out, and tries again what was set aside because of it."""
        worker = next((w for w in self._pool.ready if w.node and w.node.id == node), None)
        causes = [a.failure.cause for attempts in self._attempts.values() for a in attempts if a.node == node]
        if not (worker and worker.node and causes):
            return
        self._pool.leave_out(worker.node, causes[-1], why="shards that failed there were built elsewhere")
        for shard in list(self.set_aside):
            if node in self._tried(shard):
                del self.set_aside[shard]
                self._try_again(self._failed.pop(shard), alone=False)

    def _help_slow(self) -> None:
        """Gives units that take many times the median to a second worker."""
        if len(self._seconds) < TIMED:
            return
        limit = max(SLOW_SECONDS, self._settings.slow_factor * median(self._seconds))
        for running in list(self._running.values()):
            (worker, since), *others = running.since.items()
            if others or worker.exclusive or self._pool.now - since < limit:
                continue
            node = {worker.node.id} if worker.node else set()
            if helper := self._pool.free(node, besides=worker):
                self._pool.say(
                    f"The shard {running.unit.shard} takes longer than {limit:.0f} seconds: a second worker "
                    "builds it too."
                )
                self._give(helper, running.unit)
