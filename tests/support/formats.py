"""Stores of both format versions with the same photos and targets."""

import zipfile
from pathlib import Path

from densecli.shards.receipt_totals import publish
from densecli.shards.store import Column, Store
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter

V1 = Path(__file__).parents[1] / "shards" / "data" / "store-v1.zip"
"""Five photos of other aspect ratios, boxes of grid-square and labels of scenes-pvlm, as densecli wrote them
before there was format 2."""


def format_1(root: Path) -> Store:
    """The store of format 1."""
    with zipfile.ZipFile(V1) as file:
        file.extractall(root)
    return Store.open(root)


def format_2(old: Store, root: Path) -> Store:
    """A store of format 2 with the photos and labels of one of format 1, and the same boxes, computed."""
    store = Store.create(root, old.dataset, old.canvas, list(old.shard_sizes))
    (boxes,), (labels,) = old.columns("regions"), old.columns("targets")
    plan = {name: boxes.spec[name] for name in ("plan", "pairs")}
    regions = store.add_column("regions", boxes.name, {**plan, "stored": False})
    spec = {name: value for name, value in labels.spec.items() if name not in ("kind", "name", "data")}
    targets = store.add_column("targets", labels.name, {**spec, "regions": regions.key}, labels.info)
    _copy(old.images, store.images)
    _copy(labels, targets)
    return store


def _copy(old: Column, new: Column) -> None:
    for shard in old.shard_names:
        writer = ShardWriter(new, shard)
        for key, members in read_shard(old, shard):
            writer.add(key, members)
        writer.commit()
    publish(new)
