"""Reads batches from a store: photos, one view of their regions, and the stored targets of that view."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densecli.shards.geometry import Canvas
from densecli.shards.joined import Record
from densecli.shards.region_plans import region_plan
from densecli.shards.regions import Regions, cells_of_visit
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Column, Store
from densecli.train.batch import Batch, Sample, make_batch
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.stream import Stream
from densecli.train.targets import Arrays, TargetReader, Visit, choose_view
from densecli.train.trainer_config import LoaderConfig


class Loader(Stream):
    """Batches of photos, one view of their regions, and the targets of that view.

    Attributes:
        tokens: h and w of the student's token grid, over which masks are pooled; None if there are no masks.
    """

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
        self.tokens: tuple[int, int] | None = None
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
            masks=self._masks(record, regions, visit),
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
        batch = make_batch([part.sample for part in parts], epoch, photos)
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

    def _masks(self, record: Record, regions: Regions, visit: Visit) -> np.ndarray | None:
        """The masks of a visit on the student's tokens. Raises DenseCLIError for damaged ones."""
        if regions.masks is None:
            return None
        assert self.tokens
        with record.reading("regions"):
            return regions.coverage(self.tokens, visit.rows)

    def _target(self, kind: str, record: Record, arrays: Arrays, visit: Visit) -> np.ndarray:
        """The targets of a visit. Raises DenseCLIError for arrays that are none of this kind."""
        with record.reading(self.targets[kind].part):
            return self._readers[kind].read(arrays, visit)


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
