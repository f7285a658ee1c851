"""Prefetching: threads compute results ahead of their use, in order and up to a limit."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Event
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Stopped(Exception):
    """The stop event was set while results were still expected."""


class Pending(Generic[R]):
    """Calls that a pool is working on; results come in the order in which the calls were submitted."""

    def __init__(self, pool: Executor, *, stop: Event | None = None) -> None:
        """Starts with no calls.

        Args:
            pool: Runs the calls. It may be shared.
            stop: Once set, `results` raises Stopped.
        """
        self._pool = pool
        self._stop = stop or Event()
        self._futures: deque[Future[R]] = deque()

    def submit(self, work: Callable[..., R], *args: Any) -> None:
        """Hands `work(*args)` to the pool."""
        self._futures.append(self._pool.submit(work, *args))

    def results(self, *, keep: int = 0) -> Iterator[R]:
        """Yields results, waiting for each, until `keep` calls are left.

        Raises:
            Stopped: In place of the next result, once the stop event is set.
            Exception: Whatever a call raised, in place of its result.
        """
        while len(self._futures) > keep:
            if self._stop.is_set():
                raise Stopped
            yield self._futures.popleft().result()

    def cancel(self) -> None:
        """Drops the calls that the pool has not started."""
        for future in self._futures:
            future.cancel()


def prefetch(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int | Executor,
    window: int,
    stop: Event | None = None,
) -> Generator[R]:
    """Yields `work(item)` for each item in order, while threads already work on the next items.

    The items themselves are taken in the caller's thread. With one thread, calls never overlap. Close the
    generator to stop early: calls that have started are waited for, the others are dropped.

    Args:
        work: Called in a thread, once for each item.
        items: Taken one by one, no further ahead than the window.
        threads: How many threads to start, or a running pool, which stays open.
        window: At most this many calls are under way or finished but not yet taken.
        stop: Once set, the next result is replaced by Stopped.

    Raises:
        Stopped: See `stop`.
        Exception: Whatever `work` raised, in place of its result.
    """
    pool = ThreadPoolExecutor(threads, "prefetch") if isinstance(threads, int) else threads
    pending: Pending[R] = Pending(pool, stop=stop)
    try:
        for item in items:
            pending.submit(work, item)
            yield from pending.results(keep=window - 1)
        yield from pending.results()
    finally:
        pending.cancel()
        if isinstance(threads, int):
            pool.shutdown()
