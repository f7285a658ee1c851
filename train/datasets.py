"""A store as torch data sets: decoded photos, boxes and targets for a training loop of one's own."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset
from webdataset.utils import pytorch_worker_info

from densecli.core.errors import DenseCLIError
from densecli.shards.joined import JoinedShard, join_tars, stored_in
from densecli.shards.parted_store import open_store
from densecli.shards.store import Column, Store
from densecli.shards.tars import open_tar
from densecli.train.batch import Batch, Sample, make_batch
from densecli.train.columns import find_regions
from densecli.train.dataloader import Loader
from densecli.train.trainer_config import LoaderConfig

OPEN_SHARDS = 4
"""Shards that a process keeps open for random access."""
TURN = 64
"""Samples that a process takes before the next one has its turn; see `StoreReader.iter`."""


class _Samples:
    """Finds the columns and decodes their samples, as the trainer does."""

    def __init__(
        self,
        store: str | Store,
        teachers: Sequence[str] = (),
        *,
        regions: str | None = None,
        views: int | None = None,
        seed: int = 0,
        tokens: tuple[int, int] | None = None,
    ) -> None:
        opened = open_store(store) if isinstance(store, str) else store
        targets: dict[str, Column] = {}
        for teacher in teachers:
            column = opened.find("targets", teacher)
            if other := targets.get(column.target_kind):
                raise DenseCLIError(
                    f"{other.full_name} and {column.full_name} are both columns of {column.target_kind}.",
                    hint="Give one teacher for each kind of target, or make a data set of each.",
                )
            targets[column.target_kind] = column
        config = LoaderConfig(batch_size=1, seed=seed, workers=0)
        plan = find_regions(opened, targets, regions)
        self._loader = Loader(opened, plan, targets, config, views=views)
        self._loader.tokens = tokens
        if plan.spec.get("pool") == "mask" and not tokens:
            raise DenseCLIError(
                f"The regions {plan.full_name} are masks, which are pooled over a student's tokens.",
                hint="Give tokens=(h, w), the size of the dense map that you pool: 32, 32 of a ViT-B/16 at "
                "512 px.",
            )
        self.columns = [opened.images, plan, *targets.values()]
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the views of the samples and, of a stream, their order; call it before each epoch.

        Args:
            epoch: Counted from 0.
        """
        self.epoch = epoch


class SampleDataset(_Samples, Dataset[Sample]):
    """The samples of a store by their number, in the order of its shards, for a `DataLoader`.

    A sample has its photo on the canvas, the boxes of one view, and the targets of these boxes; which view
    follows from key and epoch, as in the trainer. Give `collate` to the `DataLoader` as `collate_fn`.

    A process keeps the last few shards open, so this suits local stores. `SampleStream` reads a store of any
    place and size in an order that opens each shard once.

        dataset = SampleDataset("stores/coco-512", ["vitl14"])
        for batch in DataLoader(dataset, batch_size=16, shuffle=True, num_workers=4, collate_fn=collate):
            ...

    Args:
        store: A store, or its folder or address.
        teachers: Names of target columns, one of each kind of target; empty for photos and boxes alone.
        regions: Name of the region plan, where no target is about boxes and the store has several.
        views: Number of views of a photo that are used, by default all.
        tokens: h and w of the dense map that regions are pooled from; needed where regions are masks.

    Raises:
        DenseCLIError: There is no such store or column, or a column is not finished.
    """

    def __init__(
        self,
        store: str | Store,
        teachers: Sequence[str] = (),
        *,
        regions: str | None = None,
        views: int | None = None,
        tokens: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(store, teachers, regions=regions, views=views, tokens=tokens)
        samples = torch.from_numpy(self._loader.reader.table.samples.astype("int64"))
        self._ends = samples.cumsum(0)
        self._open: OrderedDict[int, JoinedShard] = OrderedDict()

    def __getitem__(self, i: int) -> Sample:
        """Decodes sample i; negative numbers count from the end.

        Raises:
            IndexError: There is no such sample.
            DenseCLIError: Its shard or the sample is damaged.
        """
        number = i + len(self) if i < 0 else i
        if not 0 <= number < len(self):
            raise IndexError(f"There are {len(self)} samples, and no sample {i}.")
        shard = int(torch.searchsorted(self._ends, number, right=True))
        first = int(self._ends[shard - 1]) if shard else 0
        return self._loader.decode(self._shard(shard)[number - first], self.epoch)

    def _shard(self, shard: int) -> JoinedShard:
        if shard not in self._open:
            name = self.columns[0].shard_names[shard]
            tars = [open_tar(column, name) for column in stored_in(self.columns, name)]
            joined = join_tars(self.columns, name, tars)
            self._loader.reader.table.check(self.columns[0], shard, len(joined))
            self._open[shard] = joined
        self._open.move_to_end(shard)
        while len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        # Open files stay in their process; a worker that is spawned opens its own.
        return {**self.__dict__, "_open": OrderedDict()}


class SampleStream(_Samples, IterableDataset[Sample]):
    """The samples of a store in a shuffled order that opens each shard once, for a `DataLoader`.

    The processes of `torch.distributed` (`RANK`, `WORLD_SIZE`) and their DataLoader workers share the samples
    of an epoch: each sample comes once. Samples are those of `SampleDataset`.

        stream = SampleStream("s3://bucket/sa1b-512", ["vitl14"])
        loader = DataLoader(stream, batch_size=16, num_workers=4, collate_fn=collate)
        for epoch in range(6):
            stream.set_epoch(epoch)  # not with persistent_workers: those have copies of their own
            for batch in loader:
                ...

    Args:
        store: See `SampleDataset`.
        teachers: See `SampleDataset`.
        regions: See `SampleDataset`.
        views: See `SampleDataset`.
        seed: Seed of the order.
        tokens: See `SampleDataset`.

    Raises:
        DenseCLIError: See `SampleDataset`.
    """

    def __iter__(self) -> Iterator[Sample]:
        """Yields this worker's samples of the epoch. Raises DenseCLIError for damaged ones."""
        rank, world_size, worker, workers = pytorch_worker_info()
        readers, number = world_size * workers, rank * workers + worker
        self._loader.reader.deal(readers)
        records = self._loader.reader.iter(self.epoch, batch=TURN * readers, rank=number, world_size=readers)
        for record in records:
            yield self._loader.decode(record, self.epoch)


def collate(samples: Sequence[Sample]) -> Batch:
    """Makes a batch of samples, for `DataLoader(collate_fn=collate)`.

    Args:
        samples: B samples with R boxes in total.

    Returns:
        A batch, whose `to(device)` moves it.
    """
    return make_batch(list(samples), 0)
