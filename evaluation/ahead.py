"""Reading while the model computes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

Item = TypeVar("Item", covariant=True)


class Readable(Protocol[Item]):
    """What has items by number."""

    def __getitem__(self, i: int) -> Item: ...


def ahead(dataset: Readable[Item], indices: Sequence[int]) -> Iterator[Item]:
    """The dataset's items at `indices`; the next one is read while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(dataset.__getitem__, i) for i in indices[:1]]
        for i in [*indices[1:], None][: len(indices)]:
            found = coming.pop().result()
            coming = [] if i is None else [pool.submit(dataset.__getitem__, i)]
            yield found
