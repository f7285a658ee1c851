"""A sample of a build's photos, built in memory: what they take, and what the teachers would cost."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.pipeline.build_request import BuildRequest, cut
from densecli.pipeline.shard_builder import Unit
from densecli.pipeline.sources import Source
from densecli.pipeline.teachers import Photo
from densecli.shards.geometry import Canvas
from densecli.shards.reader import decode_npz, read_joined
from densecli.shards.receipts import Receipt
from densecli.shards.regions import Regions
from densecli.shards.store import Column
from densecli.shards.writer import ShardWriter, npz_bytes

BLOCK, RECORD = 512, 10240  # of a tar
CHUNK = 32  # photos that are built at a time


@dataclass(frozen=True)
class Sample:
    """Photos of a source, by their places in it, and what building them gave.

    keys: those that the source says. samples: how many could be read. receipts: of their chunks, by column.
    costs: FLOPs for the store and for a live teacher's visit, means over the samples, by teacher.
    """

    places: np.ndarray
    keys: list[str]
    samples: int
    columns: list[Column]
    receipts: list[list[Receipt]]
    costs: dict[str, tuple[float, float]]


def take_sample(job: BuildRequest, source: Source, count: int, *, ask: bool) -> Sample:
    """Builds `count` photos from all over the source in memory. ask: the teachers, else only what they cost.

    Raises DenseCLIError where none of the photos can be read.
    """
    n = len(source.items)
    places = np.unique(np.linspace(0, n - 1, min(count, n)).round().astype(int))
    with (
        _in_memory(job, cut(len(places), CHUNK)) as here,
        closing(Progress(len(places), "photos")) as progress,
    ):
        builder = (here if ask else replace(here, targets=())).builder()
        columns = here.make()
        items = [source.items[int(place)] for place in places]
        receipts: list[list[Receipt]] = [[] for _ in columns]
        costs: dict[str, list[tuple[float, float]]] = {teacher.name: [] for teacher, _ in job.targets}
        for i, shard in enumerate(here.store.shard_names):
            chunk = items[i * CHUNK : (i + 1) * CHUNK]
            builder.build(Unit(shard=shard, items=tuple(chunk)))
            _ask(here, columns, shard, costs, write=not ask)
            for column, found in zip(columns, receipts, strict=True):
                receipt = column.receipt(shard)
                assert receipt is not None
                found.append(receipt)
                fs.remove(column.tar_url(shard))
            progress.advance(len(chunk))
    samples = sum(receipt.samples for receipt in receipts[0])
    if not samples:
        raise DenseCLIError(
            f"None of the {len(items)} photos that were looked at can be read.", hint="Check the photos."
        )
    means = {name: _means(figures) for name, figures in costs.items()}
    return Sample(places, [item.key for item in items], samples, columns, receipts, means)


def _means(figures: list[tuple[float, float]]) -> tuple[float, float]:
    once, visit = np.mean(figures, axis=0).tolist()
    return once, visit


@contextmanager
def _in_memory(job: BuildRequest, sizes: Sequence[int]) -> Iterator[BuildRequest]:
    root = f"memory://plan-{uuid4().hex}"
    try:
        yield replace(job, store=replace(job.store, root=root, shard_sizes=tuple(sizes)))
    finally:
        fs.remove_folder(root)


def _ask(
    job: BuildRequest,
    columns: list[Column],
    shard: str,
    costs: dict[str, list[tuple[float, float]]],
    *,
    write: bool,
) -> None:
    """Adds to `costs` those of the shard's photos, and writes what would be stored of them."""
    photos = [
        Photo(
            key=record.key,
            image=np.zeros((1, 1, 3), np.uint8),
            canvas=Canvas(job.store.canvas),
            regions=Regions(**decode_npz(record.parts["regions"]["npz"])),
        )
        for record in read_joined(columns[:2], shard)
    ]
    for (teacher, _), column in zip(job.targets, columns[2:], strict=True):
        writer = ShardWriter(column, shard)
        for photo in photos:
            cost = teacher.cost(photo)
            costs[teacher.name].append((cost.once, cost.visit))
            writer.add(photo.key, {"npz": npz_bytes(cost.stored)})
        if write:
            writer.commit(seconds=dict.fromkeys(("prepare", "teacher", "encode", "decode"), 1 / 3))


def column_bytes(sample: Sample, sizes: Sequence[int], *, exact: bool) -> tuple[list[dict[str, Any]], float]:
    """Each column's kind, name and bytes, without its column.json; and the uncertainty of them all."""
    n, listed = sum(sizes), len(sample.places)
    columns, totals = [], np.zeros(listed)
    for column, receipts in zip(sample.columns, sample.receipts, strict=True):
        blocks = Counter[str]()
        for receipt in receipts:
            for name, (_, size) in receipt.members.items():
                blocks[name.split(".", 1)[0]] += BLOCK + -(-size // BLOCK) * BLOCK
        known = np.array([blocks[key] for key in sample.keys], float)
        totals += known
        each = np.full(n, known.mean())
        if exact:
            each[sample.places] = known
        shards = np.add.reduceat(each, np.cumsum([0, *sizes[:-1]])) + 2 * BLOCK
        tars = (np.ceil(shards / RECORD) * RECORD).sum()
        bare = sum(len(replace(receipt, members={}).to_json()) for receipt in receipts)
        entries = sum(len(receipt.to_json()) for receipt in receipts) - bare
        size = round(tars + len(sizes) * bare / len(receipts) + n * entries / listed)
        columns.append({"kind": column.kind, "name": column.name, "bytes": size})
    return columns, float(1.96 * totals.std() / totals.mean() / listed**0.5)
