"""A store of a few small photos with a labels column, written as the build writes it but with no teacher."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.scenes import STUFF, THINGS
from shards.codecs import TopK
from shards.geometry import Canvas
from shards.regions import region_plan
from shards.store import Column, Store
from shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes

CANVAS = 96
SHARDS = (4, 4, 3)


@dataclass(frozen=True, kw_only=True)
class TinyStore:
    """`boxes` and `labels` are by key: (N, 4) and the (N, D) distributions that went into the column."""

    store: Store
    regions: Column
    labels: Column
    offsets: np.ndarray
    boxes: dict[str, np.ndarray]
    labels_of: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> TinyStore:
    return write_store(tmp_path_factory.mktemp("store"))


def write_store(root: Path) -> TinyStore:
    rng = np.random.default_rng(0)
    canvas, plan, names = Canvas(CANVAS), region_plan("grid-densevlm"), [*THINGS, *STUFF]
    codec = TopK(things=(True,) * len(THINGS) + (False,) * len(STUFF), k=20, dtype="fp32")
    store = Store.create(root, {"name": "noise", "split": "train", "n": sum(SHARDS)}, CANVAS, list(SHARDS))
    regions = store.add_column("regions", plan.name, plan.spec)
    target = {"name": "labels", "tau": 0.01, "categories": names}
    labels = store.add_column(
        "targets", "tiny", {"target": target, "codec": codec.spec, "regions": regions.key}
    )
    boxes, labels_of, key = {}, {}, 0
    for shard, samples in zip(store.shard_names, SHARDS, strict=True):
        writers = {column.part: ShardWriter(column, shard) for column in (store.images, regions, labels)}
        for _ in range(samples):
            name, key = f"{key:04d}", key + 1
            width, height = int(rng.integers(60, 97)), 96
            photo = canvas.resize(Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)))
            cells = plan.boxes(canvas.valid_box(width, height))
            logits = rng.normal(size=(len(cells.boxes), len(names))) * 3
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            boxes[name], labels_of[name] = cells.boxes, p.astype(np.float32)
            arrays, _ = codec.encode(labels_of[name])
            about = json_bytes({"width": width, "height": height})
            writers["images"].add(name, {"jpg": jpg_bytes(photo), "json": about})
            writers["regions"].add(name, {"npz": npz_bytes({"boxes": cells.boxes, "offsets": cells.offsets})})
            writers["tiny"].add(name, {"npz": npz_bytes(arrays)})
        for writer in writers.values():
            writer.commit()
    return TinyStore(
        store=store, regions=regions, labels=labels, offsets=cells.offsets, boxes=boxes, labels_of=labels_of
    )
