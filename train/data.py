"""Batches of a store: the photos, one view of their regions, and what the teachers said about those."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from shards.geometry import Canvas
from shards.reader import Record, StoreReader, decode_image, decode_npz
from shards.regions import cells_of_visit, region_plan
from shards.store import Column, Store
from train.targets import TargetReader, Visit, choose_view, join


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples with R regions in all.

    images: (B, 3, S, S) uint8 canvases. boxes: (R, 4) float32 xyxy normalised to the canvas.
    batch_index: (R,) int64, the sample each box is of. targets: by kind of column; `labels` is the teacher's
    distribution (R, D + 2) float32, see `decoupled_kl`. keys: the B sample keys. epoch: counted from 0.
    """

    images: Tensor
    boxes: Tensor
    batch_index: Tensor
    targets: dict[str, Tensor]
    keys: tuple[str, ...]
    epoch: int

    def to(self, device: torch.device) -> "Batch":
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(
            images=move(self.images),
            boxes=move(self.boxes),
            batch_index=move(self.batch_index),
            targets={kind: move(target) for kind, target in self.targets.items()},
            keys=self.keys,
            epoch=self.epoch,
        )


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """workers: threads that decode ahead of the training step (0: none, it decodes itself). drop_last: leave
    out an epoch's last batch where it is smaller than batch_size."""

    batch_size: int
    seed: int = 0
    drop_last: bool = False
    workers: int = 2


class Stream:
    """Batches in an order that is a pure function of (seed, epoch); its state is the position alone."""

    def __init__(self, columns: Sequence[Column], config: LoaderConfig) -> None:
        """Raises DenseCLIError for columns that cannot be joined or are not finished."""
        self.config = config
        self._reader = StoreReader(columns, seed=config.seed)

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(len(self._reader), self.config.batch_size)
        return full if self.config.drop_last or not rest else full + 1

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `start` on, whatever was read before."""
        size = self.config.batch_size
        samples = self._samples(epoch, start * size)
        for _ in range(start, self.steps_per_epoch):
            yield collate(list(islice(samples, size)), epoch)

    def decode(self, record: Record, epoch: int) -> "Sample":
        """The sample as `epoch` sees it, a pure function of both."""
        raise NotImplementedError

    def _samples(self, epoch: int, start: int) -> Iterator["Sample"]:
        records = self._reader.iter(epoch, start=start)
        if not self.config.workers:
            yield from (self.decode(record, epoch) for record in records)
            return
        pending: deque[Future[Sample]] = deque()
        with ThreadPoolExecutor(self.config.workers) as pool:
            for record in records:
                pending.append(pool.submit(self.decode, record, epoch))
                if len(pending) > 2 * self.config.batch_size:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


class Loader(Stream):
    """Photos, one view of their regions, and what the teachers said about it."""

    def __init__(
        self, store: Store, regions: Column, targets: dict[str, Column], config: LoaderConfig
    ) -> None:
        """targets: by kind of column; those that speak of boxes, of the boxes of `regions`.

        Raises DenseCLIError for unfinished ones.
        """
        super().__init__([store.images, regions, *targets.values()], config)
        self.regions, self.targets = regions, targets
        self._canvas = Canvas(store.canvas)
        self._max_cells = region_plan(regions.name).max_cells
        self._readers = {kind: TargetReader(column) for kind, column in targets.items()}

    def decode(self, record: Record, epoch: int) -> "Sample":
        """One view of its regions, chosen by (key, epoch) alone."""
        image = self._canvas.pad(decode_image(record.parts["images"]["jpg"]))
        regions = decode_npz(record.parts["regions"]["npz"])
        arrays = {kind: decode_npz(record.parts[column.part]["npz"]) for kind, column in self.targets.items()}
        offsets = regions["offsets"]
        view = choose_view(record.key, epoch, len(offsets) - 1, arrays.values())
        cells = cells_of_visit(record.key, epoch, int(offsets[view + 1] - offsets[view]), self._max_cells)
        visit = Visit(offsets=offsets, view=view, cells=cells)
        return Sample(
            key=record.key,
            image=image,
            boxes=regions["boxes"][visit.rows],
            targets={kind: reader.read(arrays[kind], visit) for kind, reader in self._readers.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """image: (S, S, 3) uint8. boxes: (R, 4) float32 normalised. targets: by kind, see `TargetReader.read`."""

    key: str
    image: np.ndarray
    boxes: np.ndarray
    targets: dict[str, np.ndarray]


def collate(samples: list[Sample], epoch: int) -> Batch:
    counts = torch.tensor([len(sample.boxes) for sample in samples])
    return Batch(
        images=torch.from_numpy(np.stack([sample.image for sample in samples]))
        .permute(0, 3, 1, 2)
        .contiguous(),
        boxes=torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
        batch_index=torch.arange(len(samples)).repeat_interleave(counts),
        targets={
            kind: torch.from_numpy(join([sample.targets[kind] for sample in samples]))
            for kind in samples[0].targets
        },
        keys=tuple(sample.key for sample in samples),
        epoch=epoch,
    )
