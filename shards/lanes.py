"""Lanes: the order of an epoch, in which a process reads its own shards only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from densecli.core.random_words import random_order

Share = np.ndarray
"""(4, n) int64, what a process takes of a batch: lane, block in the lane, shard and row of each sample."""


class Lanes:
    """The samples of a store, dealt to lanes once for all epochs, each with a shuffle of its own.

    An epoch takes one sample of every lane in turn: its sample i is that number i // L of lane i % L. A batch
    is a run of the epoch's samples, sorted by lane, and each process gets an even piece of it. So the content
    of a batch depends on no number of processes. Where L divides the batch and is a multiple of the number of
    processes, a process reads its own lanes alone, in every epoch.

    Attributes:
        count: Number L of lanes.
        samples: Number of samples of all lanes.
    """

    def __init__(
        self,
        samples_per_shard: Sequence[int] | np.ndarray,
        count: int,
        *,
        seed: int,
        window: int,
        shuffle: bool = True,
    ) -> None:
        """Deals the samples.

        Args:
            samples_per_shard: Number of samples in every shard.
            count: Number of lanes. Their lengths differ by one sample at most, so a shard may lie in two.
            seed: Seed of the shuffle.
            window: Number of shards of a lane that are shuffled together.
            shuffle: Whether to shuffle; otherwise one lane holds the samples in the order of the shards.
        """
        sizes = np.asarray(samples_per_shard, dtype=np.int64)
        self.count, self.samples = count if shuffle else 1, int(sizes.sum())
        self._seed, self._window, self._shuffle = seed, window, shuffle
        self._shards = random_order(f"{seed}/lanes", len(sizes)) if shuffle else np.arange(len(sizes))
        self._ends = np.cumsum(sizes[self._shards])
        self._starts = self._ends - sizes[self._shards]

    def shares(
        self, epoch: int, start: int = 0, *, batch: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[Share]:
        """What one process takes of each batch that is left in an epoch.

        Args:
            epoch: Counted from 0.
            start: Number of the epoch's samples before the first batch.
            batch: Samples of a batch of all processes together; the last one may have fewer.
            rank: Rank of the process.
            world_size: Number of processes.
        """
        orders: dict[int, LaneOrder] = {}
        for first in range(start, self.samples, batch):
            n = min(batch, self.samples - first)
            # Of each lane the batch has the samples from..to; they end at `ends` of the sorted batch.
            before = first - np.arange(self.count)
            from_, to = -(-before // self.count), -(-(before + n) // self.count)
            ends = np.cumsum(to - from_)
            if n == batch:
                low, high = rank * n // world_size, (rank + 1) * n // world_size
            else:
                # An even piece of what is left would lie in the lanes of others.
                low, high = (_end(ends, self.count * r / world_size) for r in (rank, rank + 1))
            taken = [np.empty((4, 0), dtype=np.int64)]
            lanes = np.searchsorted(ends, [low, high - 1], "right")
            for lane in range(lanes[0], lanes[1] + 1):
                if lane not in orders:
                    orders[lane] = self.order(lane, epoch)
                behind = to[lane] - ends[lane]
                taken.append(orders[lane].rows(max(from_[lane], behind + low), min(to[lane], behind + high)))
            yield np.concatenate(taken, axis=1)

    def order(self, lane: int, epoch: int) -> "LaneOrder":
        """The order of a lane in an epoch."""
        full, more = divmod(self.samples, self.count)
        first = lane * full + min(lane, more)
        last = first + full + (lane < more)
        pieces = np.arange(
            np.searchsorted(self._ends, first, "right"), np.searchsorted(self._ends, last, "left") + 1
        )
        if first == last:
            pieces = pieces[:0]
        starts, ends = self._starts[pieces], self._ends[pieces]
        low, high = np.maximum(first, starts) - starts, np.minimum(last, ends) - starts
        key = f"{self._seed}/{epoch}/{lane}"
        if self._shuffle:
            by = random_order(key, len(pieces))
            pieces, low, high = pieces[by], low[by], high[by]
        return LaneOrder(
            lane=lane,
            shards=self._shards[pieces],
            low=low,
            high=high,
            window=self._window,
            key=key if self._shuffle else None,
        )


@dataclass(kw_only=True)
class LaneOrder:
    """The samples of one lane in one epoch: pieces of shards, a window of which is shuffled at a time.

    Attributes:
        lane: Number of the lane.
        shards: Shard of each piece, in the order of the epoch.
        low: First row of each piece.
        high: First row behind each piece.
        window: Number of pieces in a block.
        key: What the shuffle of the blocks follows from; None if they are not shuffled.
    """

    lane: int
    shards: np.ndarray
    low: np.ndarray
    high: np.ndarray
    window: int
    key: str | None

    _block: int = -1
    _rows: np.ndarray | None = None

    @cached_property
    def _ends(self) -> np.ndarray:
        """Number of samples up to the end of each block."""
        last = np.minimum(
            np.arange(self.window, len(self.shards) + self.window, self.window), len(self.shards)
        )
        return np.cumsum(self.high - self.low)[last - 1] if len(self.shards) else np.empty(0, dtype=np.int64)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """(4, stop - start) int64: lane, block, shard and row of the samples from `start` to `stop`."""
        taken = [np.empty((4, 0), dtype=np.int64)]
        block = int(np.searchsorted(self._ends, start, "right"))
        while start < stop:
            first = int(self._ends[block - 1]) if block else 0
            end = min(stop, int(self._ends[block]))
            shard_and_row = self._samples(block)[:, start - first : end - first]
            about = np.broadcast_to(np.array([[self.lane], [block]]), shard_and_row.shape)
            taken.append(np.concatenate([about, shard_and_row]))
            start, block = end, block + 1
        return np.concatenate(taken, axis=1)

    def _samples(self, block: int) -> np.ndarray:
        """(2, n) shard and row of the samples of a block."""
        if self._rows is None or self._block != block:
            pieces = range(block * self.window, min((block + 1) * self.window, len(self.shards)))
            rows = [np.arange(self.low[p], self.high[p]) for p in pieces]
            samples = np.stack(
                [np.repeat(self.shards[list(pieces)], [len(r) for r in rows]), np.concatenate(rows)]
            )
            if self.key is not None:
                samples = samples[:, random_order(f"{self.key}/{block}", samples.shape[1])]
            self._block, self._rows = block, samples
        return self._rows


def _end(ends: np.ndarray, lanes: float) -> int:
    """How many samples of a sorted batch lie in its first lanes, the last of which may be counted in part."""
    whole, part = divmod(lanes, 1)
    steps = np.concatenate([[0], ends, ends[-1:]])
    return int(steps[int(whole)] + part * (steps[int(whole) + 1] - steps[int(whole)]))


def number_of_lanes(shards: int, batch_size: int, world_size: int) -> int:
    """The number of lanes of a new training: some for each process.

    More lanes mix more shards and can be dealt to more processes later; but each border between two lanes
    cuts a shard, which is then read twice. So a lane has ten shards at least, unless there is one for each
    process only. A batch holds as many samples of each lane.

    Args:
        shards: Number of shards of the store.
        batch_size: Samples in a batch of each process.
        world_size: Number of processes.
    """
    fitting = [k for k in (4, 3, 2) if batch_size % k == 0 and 10 * k * world_size <= shards]
    return world_size * max(fitting, default=1)
