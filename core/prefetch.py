"""Work that threads do ahead of whoever waits for it, in order and so far only."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from threading import Event
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Stopped(Exception):
    """The driver wants no more of this shard."""


def ahead(
    pool: Executor, work: Callable[[T], R], items: Iterable[T], *, window: int, stop: Event
) -> Iterator[R]:
    """work(item) of each item in order, while the pool is at most `window` items ahead.

    Never more than `window` results are held. An exception of `work` comes where its result would. Raises
    Stopped in place of the next result once `stop` is set.
    """
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == window:
                yield _next(waiting, stop)
        while waiting:
            yield _next(waiting, stop)
    finally:
        for future in waiting:
            future.cancel()


def _next(waiting: deque[Future[R]], stop: Event) -> R:
    if stop.is_set():
        raise Stopped
    return waiting.popleft().result()
