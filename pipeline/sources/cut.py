"""The cut: which photos of a listing stand together in a shard."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from densecli.core.random_words import random_order
from densecli.pipeline.sources.base import Item
from densecli.pipeline.sources.packed import Parted, part

Cut = Literal["listed", "shuffled"]
"""`listed`: a shard has neighbours of the listing. `shuffled`: see `ShuffledCut`."""

WINDOW = 65_536
"""Photos that are shuffled together."""


def shuffled_order(blocks: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Shuffles the photos of a listing as far as it is cheap to read them.

    The blocks change places, then the photos of each run of blocks with about `WINDOW` photos. Blocks of one
    photo are a full shuffle. A block of tars is a tar: a shard has photos of a few neighbours in the new
    order, not of all tars, so a node needs few of their lists of names at once.

    Args:
        blocks: Number of photos of each block of the listing, in its order.
        seed: Seed of the shuffle.

    Returns:
        (N,) positions in the listing.
    """
    by = random_order(f"{seed}/cut", len(blocks))
    sizes = np.asarray(blocks, dtype=np.int64)
    starts = (np.cumsum(sizes) - sizes)[by]
    sizes = sizes[by]
    ends = np.cumsum(sizes)
    order = np.arange(sizes.sum()) + np.repeat(starts - (ends - sizes), sizes)
    last = np.flatnonzero(np.diff((ends - 1) // WINDOW, append=-2))
    for start, stop in pairwise(np.unique([0, *ends[last]]).tolist()):
        order[start:stop] = order[start:stop][random_order(f"{seed}/cut/{start}", stop - start)]
    found: np.ndarray = order.astype(np.uint32 if len(order) < 2**32 else np.int64)
    return found


class ShuffledCut(Parted):
    """The items of a listing in another order."""

    def __init__(self, items: Sequence[Item], order: np.ndarray) -> None:
        """An order of some items.

        Args:
            items: The listing.
            order: Positions in it, see `shuffled_order`.
        """
        self._items, self._order = items, order

    def __len__(self) -> int:
        return len(self._order)

    def at(self, i: int) -> Item:
        """See `LazySequence.at`."""
        return self._items[int(self._order[i])]

    def part(self, places: np.ndarray) -> Sequence[Item]:
        """Returns the photos at these places, in that order, as few arrays."""
        return part(self._items, self._order[places].astype(np.int64))
