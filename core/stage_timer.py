"""A timer that sums seconds by stage, over all threads that share it."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class StageTimer:
    """Sums the seconds spent in named stages.

    Attributes:
        seconds: By stage.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Adds the time that a `with` block takes to a stage."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Adds seconds that were measured elsewhere, such as on a GPU."""
        with self._lock:
            self.seconds[stage] += seconds

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Yields the items, and adds the time that each takes to arrive to a stage."""
        iterator = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
