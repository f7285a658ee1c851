"""The sample of a plan: some photos of all parts of a source, built in memory with the code of the build."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.pipeline.build_request import BuildRequest, shard_sizes
from densecli.pipeline.sources import Source
from densecli.pipeline.teachers import Cost, Photo
from densecli.pipeline.unit import Unit
from densecli.shards.codecs import Errors
from densecli.shards.geometry import Canvas
from densecli.shards.joined import read_joined
from densecli.shards.manifest import ErrorTotals
from densecli.shards.receipts import Receipt
from densecli.shards.store import Column
from densecli.shards.writer import ShardWriter, npz_bytes

BLOCK_BYTES = 512
"""Unit in which a tar grows for a member."""
CHUNK = 32
"""Number of photos of the sample that are built at a time."""


@dataclass(frozen=True)
class Sample:
    """A sample of a source's photos, after it was built.

    Attributes:
        places: Positions of the photos in the listing.
        keys: Keys of the photos.
        samples: Number of photos that could be read.
        columns: The columns that were built.
        receipts: Receipts of each column, one for each chunk of photos; none of computed boxes.
        costs: For each teacher, the mean FLOPs of a photo, once for the store and at each visit of a live
            teacher.
        most: For each teacher whose bytes depend on its outputs, the most that they can be, as a multiple of
            those in the receipts. Empty if the teachers ran.
    """

    places: np.ndarray
    keys: list[str]
    samples: int
    columns: list[Column]
    receipts: list[list[Receipt]]
    costs: dict[str, tuple[float, float]]
    most: dict[str, float]

    @property
    def of_regions(self) -> Errors:
        """What the receipts of the regions say of a photo in the mean; nothing but of masks."""
        totals = ErrorTotals()
        for receipt in self.receipts[1]:
            totals.add(receipt.error, receipt.samples)
        return totals.totals()

    def photo_bytes(self) -> list[np.ndarray]:
        """(listed,) bytes of each photo in the tars of each column; 0 for one that cannot be read."""
        found = []
        for receipts in self.receipts:
            blocks = Counter[str]()
            for receipt in receipts:
                for name, (_, size) in receipt.members.items():
                    blocks[name.split(".", 1)[0]] += member_bytes(size)
            found.append(np.array([blocks[key] for key in self.keys], float))
        return found


def take_sample(request: BuildRequest, source: Source, count: int, *, run_teachers: bool) -> Sample:
    """Builds photos from all parts of the source in memory.

    Args:
        request: Request of the whole build.
        source: Lists the photos.
        count: Number of photos.
        run_teachers: Whether to run the teachers. Otherwise their costs are computed.

    Raises:
        DenseCLIError: None of the photos can be read.
    """
    n = len(source.items)
    places = np.unique(np.linspace(0, n - 1, min(count, n)).round().astype(int))
    with (
        _in_memory(request, shard_sizes(len(places), CHUNK)) as here,
        closing(Progress(len(places), "photos")) as progress,
    ):
        builder = (here if run_teachers else replace(here, targets=())).builder()
        columns = here.make_columns()
        items = [source.items[int(place)] for place in places]
        receipts: list[list[Receipt]] = [[] for _ in columns]
        costs: dict[str, list[Cost]] = {teacher.name: [] for teacher, _ in request.targets}
        for i, shard in enumerate(here.store.shard_names):
            chunk = items[i * CHUNK : (i + 1) * CHUNK]
            builder.build(Unit(shard=shard, items=tuple(chunk)))
            _add_costs(here, columns, shard, costs, write=not run_teachers)
            for column, found in zip(columns, receipts, strict=True):
                if column.computed:
                    continue
                receipt = column.receipt(shard)
                assert receipt is not None
                found.append(receipt)
                fs.remove(column.tar_url(shard))
            progress.advance(len(chunk))
    samples = sum(receipt.samples for receipt in receipts[0])
    if not samples:
        raise DenseCLIError(
            f"None of the {len(items)} photos of the sample can be read.", hint="Check the photos."
        )
    means = {name: _means(of_photos) for name, of_photos in costs.items()}
    most = {name: _most(of_photos) for name, of_photos in costs.items() if of_photos[0].most}
    keys = [item.key for item in items]
    return Sample(places, keys, samples, columns, receipts, means, {} if run_teachers else most)


def _means(costs: list[Cost]) -> tuple[float, float]:
    once, visit = np.mean([(cost.once, cost.visit) for cost in costs], axis=0).tolist()
    return once, visit


def _most(costs: list[Cost]) -> float:
    """The largest target as a multiple of the smallest, in the tar."""
    largest = sum(member_bytes(len(npz_bytes(cost.most or cost.stored))) for cost in costs)
    return largest / sum(member_bytes(len(npz_bytes(cost.stored))) for cost in costs)


def member_bytes(size: int) -> int:
    """Bytes that a member takes in a tar, with its header."""
    return BLOCK_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES


@contextmanager
def _in_memory(request: BuildRequest, sizes: Sequence[int]) -> Iterator[BuildRequest]:
    """Yields the request with a store in memory, which is removed at the end of the block."""
    root = f"memory://plan-{uuid4().hex}"
    try:
        yield replace(request, store=replace(request.store, root=root, shard_sizes=tuple(sizes)))
    finally:
        fs.remove_folder(root)


def _add_costs(
    request: BuildRequest,
    columns: list[Column],
    shard: str,
    costs: dict[str, list[Cost]],
    *,
    write: bool,
) -> None:
    """Adds the costs of a shard's photos. With `write`, stores blank targets of the right size."""
    photos = [
        Photo(
            key=record.key,
            image=np.zeros((1, 1, 3), np.uint8),
            canvas=Canvas(request.store.canvas),
            regions=record.regions(),
        )
        for record in read_joined(columns[:2], shard)
    ]
    for (teacher, _), column in zip(request.targets, columns[2:], strict=True):
        writer = ShardWriter(column, shard)
        for photo in photos:
            cost = teacher.cost(photo)
            costs[teacher.name].append(cost)
            writer.add(photo.key, {"npz": npz_bytes(cost.stored)})
        if write:
            writer.commit(seconds=dict.fromkeys(("prepare", "teacher", "encode", "decode"), 1 / 3))
