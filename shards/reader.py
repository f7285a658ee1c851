"""Reads a store: joined samples of several columns, in an order that follows from seed and epoch."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import tee

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.joined import JoinedShard, Record, open_joined
from densecli.shards.shuffle import shuffled_blocks

# Files fetched at the same time: object stores are slow to answer, not to send.
_FETCHES = 8


class StoreReader:
    """Joined samples of some columns of one store, shuffled by seed and epoch."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        seed: int = 0,
        shuffle: bool = True,
        window: int = 4,
        cache: Cache | None = None,
    ) -> None:
        """A reader of finished columns.

        Args:
            columns: Of one store.
            seed: Seed of the shuffle.
            shuffle: Whether to shuffle; otherwise samples come in the order of the shards.
            window: Number of shards that are shuffled together. As many again are fetched ahead.
            cache: Keeps the tars of a remote store.

        Raises:
            DenseCLIError: The columns cannot be joined, or one is not finished.
        """
        self.columns = _joinable(columns)
        self.seed = seed
        self.shuffle = shuffle
        self.window = window
        self.cache = cache
        with ThreadPoolExecutor(_FETCHES) as pool:
            receipts = list(pool.map(columns[0].receipt, columns[0].shard_names))
        self.samples_per_shard = [receipt.samples for receipt in receipts if receipt is not None]

    def __len__(self) -> int:
        return sum(self.samples_per_shard)

    def iter(
        self, epoch: int, start: int = 0, *, chunk: int = 1, rank: int = 0, world_size: int = 1
    ) -> Iterator[Record]:
        """The records of one process in an epoch. Reads only the shards that it needs.

        Args:
            epoch: Counted from 0.
            start: Position in the epoch to begin at: the number of samples before it, over all processes.
            chunk: Number of successive records that go to the same process.
            rank: Of every `world_size` chunks, this process gets the one of its rank.
            world_size: Number of processes.
        """
        names = self.columns[0].shard_names

        def fetch(shard: int) -> JoinedShard:
            return open_joined(self.columns, names[shard], self.cache)

        windows, later = tee(self._windows(epoch, start, chunk, rank, world_size))
        wanted = (shard for rows in later for shard in _shards_of(rows))
        # Beside the shards of one window, as many again.
        ahead = (self.window if self.shuffle else 1) + 1
        with closing(prefetch(fetch, wanted, threads=_FETCHES, window=ahead)) as fetched:
            for rows in windows:
                shards = {shard: next(fetched) for shard in _shards_of(rows)}
                for shard, row in rows.tolist():
                    yield shards[shard][row]

    def _windows(
        self, epoch: int, start: int, chunk: int, rank: int, world_size: int
    ) -> Iterator[np.ndarray]:
        """The (shard, row) pairs that `iter` takes from each block of the epoch, without empty ones."""
        first = 0
        for block in self._blocks(epoch):
            after = np.arange(first, first + len(block)) - start
            first += len(block)
            taken = block[(after >= 0) & (after // chunk % world_size == rank)]
            if len(taken):
                yield taken

    def _blocks(self, epoch: int) -> Iterator[np.ndarray]:
        if self.shuffle:
            return shuffled_blocks(self.samples_per_shard, self.seed, epoch, self.window)
        return (np.stack([np.full(n, s), np.arange(n)], axis=1) for s, n in enumerate(self.samples_per_shard))


def _shards_of(rows: np.ndarray) -> list[int]:
    """The shards of some (shard, row) pairs, each once, in order."""
    return list(dict.fromkeys(rows[:, 0].tolist()))


def _joinable(columns: Sequence[Column]) -> list[Column]:
    first = columns[0]
    for i, column in enumerate(columns):
        canvases = [c.spec["data"]["canvas"] for c in (first, column)]
        if canvases[0] != canvases[1]:
            raise DenseCLIError(
                f"{first.url} was made for canvas {canvases[0]}, but {column.url} for canvas {canvases[1]}.",
                hint="Take columns of one store: cached maps cannot be resized.",
            )
        if column.spec["data"] != first.spec["data"]:
            raise DenseCLIError(
                f"{first.url} and {column.url} belong to different stores.",
                hint="Take columns of one store: only those hold the same samples.",
            )
        if column.part in [c.part for c in columns[:i]]:
            raise DenseCLIError(
                f"Two of the columns to read are called {column.part}.", hint="Choose one of them by its id."
            )
        if missing := column.missing():
            raise DenseCLIError(
                f"The column {column.url} is not finished: {len(missing)} of {len(column.shard_names)} "
                f"shards are missing, the first is {missing[0]}.",
                hint="Run its build again: it continues where it stopped.",
            )
    return list(columns)
