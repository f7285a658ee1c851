"""Where a shard's time went."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class StageTimer:
    """Seconds by stage, summed over the threads that share the clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        elapsed = time.perf_counter() - start
        with self._lock:
            self.seconds[stage] += elapsed

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time until each of them comes is the stage's."""
        iterator = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
