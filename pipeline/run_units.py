"""Hands units to the workers of a pool until all are built, and retries those that fail."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError

from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain, readable
from densecli.pipeline.unit import PhotoError, Report, Unit, one_line
from densecli.pipeline.worker_pool import Failure, Worker, WorkerPool, result_of

POLL_SECONDS = 0.5
"""Seconds between two checks for signals."""


def run_units(
    units: Iterator[Unit],
    pool: WorkerPool,
    max_attempts: int,
    stopping: Callable[[], bool] = lambda: False,
) -> Generator[Report]:
    """Yields a report on each unit, in the order in which they finish.

    A unit that fails is retried. A worker that dies is replaced; if there is no room for another, the others
    do its work. The units of a dead worker are retried one at a time, so that a unit that kills its worker
    does not count against others. However the run ends, running units are stopped and nothing half-written is
    left.

    Args:
        units: The units to build.
        pool: The workers.
        max_attempts: The run ends after this many failures of one unit, or of workers to start.
        stopping: Whether to end the run early; called several times a second.

    Raises:
        DenseCLIError: A unit or the workers failed too often, or a worker raised an error that would only
            occur again (any DenseCLIError except Unreachable).
    """
    retries, suspects = deque[Unit](), deque[Unit]()
    failures: Counter[str] = Counter()
    running: dict[ray.ObjectRef[Any], tuple[Unit, Worker]] = {}

    def failed(cause: BaseException, unit: Unit | None = None) -> None:
        what = f"Shard {unit.shard}" if unit else "A worker"
        failures[what] += 1
        if failures[what] >= max_attempts:
            raise _gave_up(what, max_attempts, cause, unit) from cause

    def unit_for(worker: Worker) -> Unit | None:
        if suspects and not worker.units:
            worker.exclusive = True
            return suspects.popleft()
        return retries.popleft() if retries else next(units, None)

    try:
        while not stopping():
            pool.fill()
            while (worker := pool.least_busy()) and (unit := unit_for(worker)):
                worker.units.add(unit.shard)
                running[worker.handle.build.remote(unit)] = unit, worker
            if pool.ready and not running:
                return
            done, _ = ray.wait([*running, *pool.starting], timeout=POLL_SECONDS)
            for call in done:
                result = result_of(call)
                if call in pool.starting:
                    worker = pool.starting.pop(call)
                    if isinstance(result, Failure):
                        failed(result.cause)
                    else:
                        pool.ready.append(worker)
                        del failures["A worker"]
                    continue
                unit, worker = running.pop(call)
                if isinstance(result, Failure) and result.fatal:
                    # A dead worker keeps its units, so that each of them knows that it was not alone.
                    pool.lose(worker)
                    if len(worker.units) == 1:
                        failed(result.cause, unit)
                    suspects.append(unit)
                    continue
                pool.finished(worker, unit)
                if isinstance(result, Failure):
                    failed(result.cause, unit)
                    retries.append(unit)
                else:
                    yield result
    finally:
        pool.stop(list(running))


def _gave_up(what: str, attempts: int, cause: BaseException, unit: Unit | None) -> DenseCLIError:
    hint = "Finished shards are kept: run the same command again once the cause is gone."
    if isinstance(cause, ActorDiedError | OutOfMemoryError):
        hint = f"If dmesg says that memory ran out, lower --workers or --batch-size. {hint}"
    if unit and unit.items and not isinstance(cause, PhotoError):
        # A photo that ends its worker cannot be named by it.
        first, last = (plain(readable(unit.items[i].ref)) for i in (0, -1))
        hint = f"The shard has the photos {first} to {last}. {hint}"
    return DenseCLIError(f"{what} failed {attempts} times, the last time with {one_line(cause)}", hint=hint)
