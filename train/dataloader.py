"""Reads batches from a store: photos, one view of their regions, and the stored targets of that view."""

import json
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densecli.core.prefetch import prefetch
from densecli.shards.cache import Cache
from densecli.shards.geometry import Canvas
from densecli.shards.joined import Record
from densecli.shards.lanes import number_of_lanes
from densecli.shards.reader import StoreReader
from densecli.shards.regions import cells_of_visit, region_plan
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Column, Store
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.slots import Slots
from densecli.train.targets import Arrays, TargetReader, Visit, choose_view, join
from densecli.train.trainer_config import LoaderConfig


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples with R regions in total.

    Attributes:
        images: (B, 3, S, S) uint8 canvases.
        boxes: (R, 4) float32 xyxy, normalised to the canvas.
        batch_index: (R,) int64, the sample of each box.
        photos: (B, 4) float32 xyxy, the part of each canvas that its photo covers.
        targets: float32 by kind of target; see `TargetReader.read`. `labels` is the teacher's distribution,
            (R, D + 2); see `decoupled_kl`.
        keys: Keys of the B samples. Empty in a process that has no sample of its own in the last batch of an
            epoch; it computes another's with weight 0.
        epoch: Counted from 0.
    """

    images: Tensor
    boxes: Tensor
    batch_index: Tensor
    photos: Tensor
    targets: dict[str, Tensor]
    keys: tuple[str, ...]
    epoch: int

    def to(self, device: torch.device) -> "Batch":
        """Moves the batch to a device; a copy from the CPU to a GPU runs while the GPU computes."""

        def move(tensor: Tensor) -> Tensor:
            # Only pinned memory is copied while the GPU computes; what the GPU decoded is already there.
            tensor = tensor.pin_memory() if (tensor.device.type, device.type) == ("cpu", "cuda") else tensor
            return tensor.to(device, non_blocking=True)

        return Batch(
            # The permutation to planes is cheap only on the GPU.
            images=move(self.images).contiguous(),
            boxes=move(self.boxes),
            batch_index=move(self.batch_index),
            photos=move(self.photos),
            targets={kind: move(target) for kind, target in self.targets.items()},
            keys=self.keys,
            epoch=self.epoch,
        )


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
        """Makes a batch of what `_part` gave; see `collate`."""
        return collate(parts, epoch, photos)

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


class Loader(Stream):
    """Batches of photos, one view of their regions, and the targets of that view."""

    def __init__(
        self,
        store: Store,
        regions: Column,
        targets: dict[str, Column],
        config: LoaderConfig,
        *,
        views: int | None = None,
        decoder: JpegDecoder | None = None,
        lanes: int | None = None,
        table: ShardTable | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Opens the columns of a training.

        Args:
            store: The store.
            regions: Column of the region plan.
            targets: Target columns by kind; their boxes, if any, are those of `regions`.
            config: How batches are read.
            views: Number of views of a photo that are used; see `choose_view`.
            decoder: Decodes whole batches of photos; by default Pillow decodes them one by one.
            lanes: See `Stream`.
            table: See `Stream`.
            rank: Number of this process.
            world_size: Number of processes.

        Raises:
            DenseCLIError: The columns cannot be joined or are not finished.
        """
        columns = [store.images, regions, *targets.values()]
        canvas = Canvas(store.canvas)
        super().__init__(columns, canvas, config, lanes=lanes, table=table, rank=rank, world_size=world_size)
        self.regions, self.targets, self.decoder = regions, targets, decoder
        self._views = views
        self._max_cells = region_plan(regions.name).max_cells
        self._readers = {kind: TargetReader(column) for kind, column in targets.items()}

    def decode(self, record: Record, epoch: int, canvas: np.ndarray | None = None) -> "Sample":
        """Decodes a sample with one view of its regions, which depends only on key and epoch."""
        part = self._part(record, epoch, canvas)
        later = {
            kind: self._target(kind, record, arrays, part.visit) for kind, arrays in part.undecoded.items()
        }
        return replace(part.sample, targets={**part.sample.targets, **later})

    def _part(self, record: Record, epoch: int, canvas: np.ndarray | None = None) -> "_Part":
        """A sample without those targets that are decoded for the whole batch at once."""
        regions = record.regions()
        arrays = {kind: record.arrays(column.part) for kind, column in self.targets.items()}
        offsets = regions.offsets
        view = choose_view(record.key, epoch, len(offsets) - 1, arrays.values(), self._views)
        cells = cells_of_visit(record.key, epoch, int(offsets[view + 1] - offsets[view]), self._max_cells)
        visit = Visit(offsets=offsets, view=view, cells=cells)
        undecoded = {kind: found for kind, found in arrays.items() if self._readers[kind].in_batches}
        sample = Sample(
            key=record.key,
            image=record.parts["images"]["jpg"] if self.decoder else self._canvas.pad(record.image(), canvas),
            boxes=regions.boxes[visit.rows],
            photo=self.photo_box(record),
            targets={
                kind: self._target(kind, record, found, visit)
                for kind, found in arrays.items()
                if kind not in undecoded
            },
        )
        return _Part(sample=sample, record=record, visit=visit, undecoded=undecoded)

    def _collate(self, parts: list[Any], epoch: int, photos: JpegDecoder | Tensor) -> Batch:
        """See `Stream._collate`."""
        batch = collate([part.sample for part in parts], epoch, photos)
        later = {kind: torch.from_numpy(self._decoded(kind, parts)) for kind in parts[0].undecoded}
        return replace(batch, targets={**batch.targets, **later})

    def _decoded(self, kind: str, parts: "list[_Part]") -> np.ndarray:
        """The targets of a batch. Raises DenseCLIError, with its sample, for arrays that are damaged."""
        try:
            return self._readers[kind].read_batch([(part.undecoded[kind], part.visit) for part in parts])
        except Exception:
            for part in parts:
                self._target(kind, part.record, part.undecoded[kind], part.visit)
            raise

    def _target(self, kind: str, record: Record, arrays: Arrays, visit: Visit) -> np.ndarray:
        """The targets of a visit. Raises DenseCLIError for arrays that are none of this kind."""
        with record.reading(self.targets[kind].part):
            return self._readers[kind].read(arrays, visit)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One decoded sample.

    Attributes:
        key: Its key.
        image: (S, S, 3) uint8 canvas, or the JPEG if a `JpegDecoder` decodes it later.
        boxes: (R, 4) float32 xyxy, normalised to the canvas.
        photo: (4,) float32 xyxy, the part of the canvas that the photo covers.
        targets: Targets by kind; see `TargetReader.read`.
    """

    key: str
    image: Any
    boxes: np.ndarray
    photo: np.ndarray
    targets: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A sample on its way into a batch.

    Attributes:
        sample: The sample, without some of its targets.
        record: Its record.
        visit: Its boxes.
        undecoded: The stored arrays of the other targets, by kind.
    """

    sample: Sample
    record: Record
    visit: Visit
    undecoded: Mapping[str, Arrays]


def collate(samples: list[Sample], epoch: int, photos: JpegDecoder | Tensor | None = None) -> Batch:
    """Makes a batch of B samples.

    Args:
        samples: The samples.
        epoch: Counted from 0.
        photos: The canvases of B samples or more, (., S, S, 3), by default those that the samples hold; or
            decodes them, if they are still JPEGs.
    """
    counts = torch.tensor([len(sample.boxes) for sample in samples])
    if photos is None:
        photos = torch.from_numpy(np.stack([sample.image for sample in samples]))
    if isinstance(photos, Tensor):
        images = photos[: len(samples)].permute(0, 3, 1, 2)
    else:
        images = photos([sample.image for sample in samples])
    return Batch(
        images=images,
        boxes=torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
        batch_index=torch.arange(len(samples)).repeat_interleave(counts),
        photos=torch.from_numpy(np.stack([sample.photo for sample in samples])),
        targets={
            kind: torch.from_numpy(join([sample.targets[kind] for sample in samples]))
            for kind in samples[0].targets
        },
        keys=tuple(sample.key for sample in samples),
        epoch=epoch,
    )
