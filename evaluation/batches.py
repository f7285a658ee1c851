"""Batches of photos, read while the model computes; each process gets its share."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import TypeVar

from densecli.core.distributed import Distributed
from densecli.core.prefetch import prefetch
from densecli.core.progress import Progress

Item = TypeVar("Item")
THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Threads that read photos."""


def batches(
    read: Callable[[int], Item], count: int, size: int, processes: Distributed, *, silent: bool = False
) -> Iterator[list[Item]]:
    """Yields this process's batches of photos; threads read the next one while the caller works on this one.

    Whole batches are dealt to the processes, so any number of processes sees the same batches.

    Args:
        read: Reads the photo with an index from 0 to count - 1.
        count: Number of photos.
        size: Photos in a batch.
        processes: The processes that share the batches.
        silent: Whether to show no progress.
    """
    starts = range(0, count, size)[processes.rank :: processes.world_size]
    parts = [range(start, min(start + size, count)) for start in starts]
    progress = Progress(
        sum(map(len, parts)), "photos", silence=math.inf if silent or not processes.first else 0
    )
    photos = prefetch(read, chain.from_iterable(parts), threads=THREADS, window=size + 1)
    with closing(progress), closing(photos):
        for part in parts:
            yield list(islice(photos, len(part)))
            progress.advance(len(part))
