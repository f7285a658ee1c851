"""Reading while the model computes: of each process its share of the batches."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from densecli.core.distributed import Distributed
from densecli.core.progress import Progress

Item = TypeVar("Item")


def batches(read: Callable[[int], Item], count: int, size: int, ranks: Distributed) -> Iterator[list[Item]]:
    """`read` of 0 to count - 1, photos, `size` at a time; of the batches, which are the same whatever the
    number of processes, those of this one. The next is read, in threads, while the caller works on this one.
    """
    starts = range(0, count, size)[ranks.rank :: ranks.world_size]
    parts = [range(start, min(start + size, count)) for start in starts]
    told = Progress(sum(map(len, parts)), "photos", silence=0 if ranks.first else math.inf)
    with closing(told) as progress, ThreadPoolExecutor() as pool:
        coming = pool.map(read, parts[0] if parts else range(0))
        for part in [*parts[1:], range(0)][: len(parts)]:
            ready, coming = list(coming), pool.map(read, part)
            yield ready
            progress.advance(len(ready))
