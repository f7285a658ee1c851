"""Reads a store: joined samples of several columns, in an order that follows from seed, epoch and lanes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import tee
from typing import Generic, TypeVar

from densecli.core.prefetch import prefetch
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.joined import JoinedShard, Record, join_tars, stored_in
from densecli.shards.lanes import Lanes, Share
from densecli.shards.shard_table import ShardTable
from densecli.shards.tars import OpenTar, open_tar

T = TypeVar("T")

# Files fetched at the same time: object stores are slow to answer, not to send.
_FETCHES = 8

# Every tar that is open holds a file descriptor.
_MOST_AHEAD = 16


class StoreReader:
    """Joined samples of some columns of one store, shuffled by seed and epoch."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        seed: int = 0,
        shuffle: bool = True,
        lanes: int = 1,
        window: int = 4,
        prefetch_bytes: float = 1e9,
        cache: Cache | None = None,
        table: ShardTable | None = None,
    ) -> None:
        """A reader of finished columns.

        Args:
            columns: Columns of one store.
            seed: Seed of the shuffle.
            shuffle: Whether to shuffle; otherwise one lane holds the samples in the order of the
                shards, whatever `lanes` says.
            lanes: Number of lanes that the samples are dealt to, see `Lanes`.
            window: Number of shards of a lane that are shuffled together.
            prefetch_bytes: Bytes of the first column that are fetched ahead: at least one shard, at most 16.
            cache: Keeps the tars of a remote store.
            table: What `ShardTable.of` gives for the columns, if another process has read it already.

        Raises:
            DenseCLIError: The columns cannot be joined, or one is not finished.
        """
        self.columns = list(columns)
        self.cache = cache
        self.table = table or ShardTable.of(columns)
        self._deal = partial(Lanes, self.table.kept, seed=seed, window=window, shuffle=shuffle)
        self.deal(lanes)
        mean = float(self.table.tar_bytes.mean()) if len(self.table.tar_bytes) else 0.0
        self._shards_ahead = min(max(1, int(prefetch_bytes / max(1.0, mean))), _MOST_AHEAD)

    def __len__(self) -> int:
        return self.lanes.samples

    def deal(self, lanes: int) -> None:
        """Deals the samples to another number of lanes, for epochs that begin later."""
        self.lanes = self._deal(lanes)

    def iter(
        self, epoch: int, start: int = 0, *, batch: int = 1024, rank: int = 0, world_size: int = 1
    ) -> Iterator[Record]:
        """The records of one process in an epoch. Reads only the shards that it needs.

        Args:
            epoch: Counted from 0.
            start: Position in the epoch to begin at: the number of samples before it, over all processes.
            batch: Samples of a batch of all processes together, of which this one gets a share; see `Lanes`.
            rank: Number of this process.
            world_size: Number of processes.
        """
        names = self.columns[0].shard_names

        def fetch(tar: tuple[Column, int]) -> OpenTar:
            column, shard = tar
            return open_tar(column, names[shard], self.cache, self.table.seal(column, shard))

        now, later = tee(self.lanes.shares(epoch, start, batch=batch, rank=rank, world_size=world_size))
        wanted = ((c, shard) for shard in _first_uses(later) for c in stored_in(self.columns, names[shard]))
        window = 1 + self._shards_ahead * sum(not column.computed for column in self.columns)
        blocks: OpenBlocks[JoinedShard] = OpenBlocks()
        with closing(prefetch(fetch, wanted, threads=_FETCHES, window=window)) as fetched:
            for share in now:
                for lane, block, shard, row in zip(*share.tolist(), strict=True):
                    held = blocks.at(lane, block)
                    if shard not in held:
                        tars = [next(fetched) for _ in stored_in(self.columns, names[shard])]
                        joined = join_tars(self.columns, names[shard], tars)
                        self.table.check(self.columns[0], shard, len(joined))
                        held[shard] = self.table.kept_of(joined)
                    yield held[shard][row]


class OpenBlocks(Generic[T]):
    """What is held for each shard of the block that each lane has reached."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, dict[int, T]]] = {}

    def at(self, lane: int, block: int) -> dict[int, T]:
        """What is held for a block, by shard. What was held for the lane's former block is dropped."""
        reached, held = self._held.get(lane, (-1, {}))
        if reached != block:
            held = {}
            self._held[lane] = block, held
        return held


def _first_uses(shares: Iterable[Share]) -> Iterator[int]:
    """The shards in the order in which their lane's block comes to need them."""
    blocks: OpenBlocks[None] = OpenBlocks()
    for share in shares:
        for lane, block, shard in dict.fromkeys(zip(*share[:3].tolist(), strict=True)):
            held = blocks.at(lane, block)
            if shard not in held:
                held[shard] = None
                yield shard
