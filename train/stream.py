"""Batches in an order that depends only on seed, epoch and lanes."""

import json
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from densecli.core.prefetch import prefetch
from densecli.shards.cache import Cache
from densecli.shards.geometry import Canvas
from densecli.shards.joined import Record
from densecli.shards.lanes import number_of_lanes
from densecli.shards.reader import StoreReader
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Column
from densecli.train.batch import Batch, Sample, make_batch
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.slots import Slots
from densecli.train.trainer_config import LoaderConfig


class Stream:
    """Batches in an order that depends only on seed, epoch and lanes; the position is the only state.

    The batches of all processes, concatenated by rank, are those of a single process with batches of `whole`
    samples and as many lanes. Subclasses define how a sample is decoded.

    Attributes:
        lanes: Number of lanes that the samples are dealt to, see `Lanes`.
        reader: The joined records.
    """

    decoder: JpegDecoder | None = None
    """Decodes whole batches of photos, if `decode` leaves them as they are stored."""
    pinned: bool = False
    """Whether photos are decoded into pinned memory, from which a GPU copies while it computes."""

    def __init__(
        self,
        columns: Sequence[Column],
        canvas: Canvas,
        config: LoaderConfig,
        *,
        lanes: int | None = None,
        table: ShardTable | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Opens columns.

        Args:
            columns: Joined by key.
            canvas: The store's.
            config: How batches are read.
            lanes: Number of lanes of the run that is continued; None for a new one.
            table: What `ShardTable.of` gives for the columns, if another process has read it already.
            rank: Number of this process.
            world_size: Number of processes.

        Raises:
            DenseCLIError: The columns cannot be joined or are not finished.
        """
        self.config, self.rank, self.world_size = config, rank, world_size
        self._canvas = canvas
        self._slots = Slots((config.batch_size, canvas.size, canvas.size, 3))
        shards = len(columns[0].shard_names)
        self.lanes = config.lanes or lanes or number_of_lanes(shards, config.batch_size, world_size)
        self.reader = StoreReader(
            columns,
            seed=config.seed,
            lanes=self.lanes,
            window=config.shuffle_window,
            prefetch_bytes=config.prefetch_mb * 1e6,
            cache=Cache(config.cache, round(config.cache_gb * 1e9)) if config.cache else None,
            table=table or ShardTable.of(columns, config.key_ranges),
        )

    def __len__(self) -> int:
        """Samples of an epoch: those in the store, or the share of them that the training reads."""
        return len(self.reader)

    @property
    def whole(self) -> int:
        """Samples in a batch of all processes together."""
        return self.config.batch_size * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self._steps(len(self))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yields this process's batches of an epoch.

        Args:
            epoch: Counted from 0.
            start: Number of samples of the epoch that all processes together have already seen.
        """
        share = {"batch": self.whole, "rank": self.rank, "world_size": self.world_size}
        # Canvases of the batches that are being decoded, in order.
        canvases: deque[Tensor] = deque()
        mine = self._samples(self.reader.iter(epoch, start, **share), epoch, canvases)
        with closing(mine):
            for first in range(start, start + self._steps(len(self) - start) * self.whole, self.whole):
                if samples := list(islice(mine, self.config.batch_size)):
                    yield self._collate(samples, epoch, self.decoder or canvases.popleft())
                else:
                    record = next(self.reader.iter(epoch, first))
                    one = self._slots.take(pinned=self.pinned)
                    alone = [self._part(record, epoch, one[0].numpy())]
                    yield replace(self._collate(alone, epoch, self.decoder or one), keys=())

    def _steps(self, samples: int) -> int:
        full, partial = divmod(samples, self.whole)
        return full if self.config.drop_last or not partial else full + 1

    def decode(self, record: Record, epoch: int, canvas: np.ndarray | None = None) -> "Sample":
        """Decodes a sample; the result depends only on the record and the epoch.

        Args:
            record: The sample as stored.
            epoch: Counted from 0.
            canvas: (S, S, 3) uint8 that takes the photo; by default a new one.
        """
        raise NotImplementedError

    def _part(self, record: Record, epoch: int, canvas: np.ndarray | None = None) -> Any:
        """What threads do for a sample of a batch; the arguments are those of `decode`."""
        return self.decode(record, epoch, canvas)

    def _collate(self, parts: list[Any], epoch: int, photos: JpegDecoder | Tensor) -> Batch:
        """Makes a batch of what `_part` gave; see `make_batch`."""
        return make_batch(parts, epoch, photos)

    def photo_box(self, record: Record) -> np.ndarray:
        """The part of the canvas that a photo covers, (4,) float32 xyxy. Raises DenseCLIError if damaged."""
        with record.reading("images"):
            about = json.loads(bytes(record.parts["images"]["json"]))
            return self._canvas.valid_box(about["width"], about["height"])

    def _samples(self, records: Iterator[Record], epoch: int, canvases: deque[Tensor]) -> Generator[Any]:
        """Decodes the photos of each batch side by side into one tensor, which it appends to `canvases`."""

        def places() -> Iterator[tuple[Record, np.ndarray | None]]:
            for number, record in enumerate(records):
                place = number % self.config.batch_size
                if not place and not self.decoder:
                    canvases.append(self._slots.take(pinned=self.pinned))
                    rows = canvases[-1].numpy()
                yield record, None if self.decoder else rows[place]

        def decode(at: tuple[Record, np.ndarray | None]) -> Any:
            record, canvas = at
            return self._part(record, epoch, canvas)

        if not self.config.workers:
            return (decode(place) for place in places())
        window = 2 * self.config.batch_size + 1
        return prefetch(decode, places(), threads=self.config.workers, window=window)
