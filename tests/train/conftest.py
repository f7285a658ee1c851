"""A store of a few small photos with a labels column, written as the build writes it but with no teacher;
and one with a column of every kind."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densecli.scenes.vocabulary import STUFF, THINGS
from densecli.shards.codecs import LowRank, Rows, TopK
from densecli.shards.geometry import Canvas
from densecli.shards.region_plans import region_plan
from densecli.shards.regions import stored_views
from densecli.shards.store import Column, Store
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes

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


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads sum in another order than one: a run is bit-equal with as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


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


VIEWS, SIDE, GRID, WIDTH = 4, 3, 8, 64  # of crops and refined columns; of maps; of the student's embeddings
PVLM_WIDTH = 48


@dataclass(frozen=True, kw_only=True)
class FullStore(TinyStore):
    """`values`: by kind and key what went into a column, a row for a box (or for its token), or for a token
    of the map; `views`: by key the views that `crops` and `refined` hold."""

    values: dict[str, dict[str, np.ndarray]]
    views: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> FullStore:
    """With columns for a `scenes-s` student, lossless, all of noise; `crops-half` is what that of crops would
    be with half of its views."""
    tiny = write_store(tmp_path_factory.mktemp("full"))
    rng = np.random.default_rng(1)
    sizes = np.diff(tiny.offsets)
    views = {key: stored_views(key, len(sizes), VIEWS) for key in tiny.boxes}
    kinds = ("crops", "crop-labels", "refined", "gram", "self")
    values: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in kinds}
    topk, names = tiny.labels.codec, tiny.labels.spec["target"]["categories"]

    def rows(n: int, width: int) -> np.ndarray:
        x = rng.normal(size=(n, width)).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def crops(key: str) -> dict[str, np.ndarray]:
        values["crops"][key] = rows(sizes[views[key]].sum(), WIDTH)
        return {**Rows(dtype="fp32").encode(values["crops"][key])[0], "views": views[key]}

    def pvlm_crops(key: str) -> dict[str, np.ndarray]:
        x = rows(sizes[views[key]].sum(), PVLM_WIDTH)
        return {**Rows(dtype="fp32").encode(x)[0], "views": views[key]}

    def crop_labels(key: str) -> dict[str, np.ndarray]:
        logits = rng.normal(size=(sizes[views[key]].sum(), len(names))) * 3
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        values["crop-labels"][key] = p.astype(np.float32)
        return {**topk.encode(values["crop-labels"][key])[0], "views": views[key]}

    def half(key: str) -> dict[str, np.ndarray]:
        few = views[key][: VIEWS // 2]
        return {**Rows(dtype="fp32").encode(values["crops"][key][: sizes[few].sum()])[0], "views": few}

    def refined(key: str) -> dict[str, np.ndarray]:
        values["refined"][key] = rows(sizes[views[key]].sum() * SIDE**2, 8)
        return {"x": values["refined"][key], "views": views[key]}

    def tokens(kind: str) -> Callable[[str], dict[str, np.ndarray]]:
        def of_key(key: str) -> dict[str, np.ndarray]:
            # Another rank for every other sample, as with an adaptive one.
            rank = 16 - 4 * (int(key) % 2)
            x = rows(GRID**2, 24)
            arrays, _ = LowRank(rank=rank, dtype="fp32").encode(x)
            values[kind][key] = arrays["x"]
            return {**arrays, "grid": np.array([GRID, GRID], np.int32)}

        return of_key

    lowrank = LowRank(rank=16, dtype="fp32").spec
    crops_spec = {"name": "crops", "views": VIEWS, "crop": "cell"}
    refined_spec = {"name": "refined", "views": VIEWS, "side": SIDE}
    add_target(tiny, "crops-scenes-s", crops_spec, Rows(dtype="fp32").spec, crops)
    add_target(tiny, "crops-half", {**crops_spec, "views": VIEWS // 2}, Rows(dtype="fp32").spec, half)
    add_target(tiny, "crops-vitl14", crops_spec, Rows(dtype="fp32").spec, pvlm_crops)
    label_spec = {"name": "crop-labels", "views": VIEWS, "tau": 0.01, "categories": names}
    add_target(tiny, "relabel-crops-vitl14", label_spec, topk.spec, crop_labels)
    add_target(tiny, "refiner-scenes-s", refined_spec, lowrank, refined)
    add_target(tiny, "dinov2-vitb14", {"name": "gram"}, lowrank, tokens("gram"))
    add_target(tiny, "self-scenes-s", {"name": "self"}, lowrank, tokens("self"))
    return FullStore(**vars(tiny), values=values, views=views)


def add_target(
    tiny: TinyStore, name: str, target: dict, codec: dict, arrays_of: Callable[[str], dict[str, np.ndarray]]
) -> Column:
    spec = {"target": target, "codec": codec}
    if target["name"] not in ("gram", "self"):
        spec["regions"] = tiny.regions.key
    column = tiny.store.add_column("targets", name, spec)
    for shard in tiny.store.shard_names:
        writer = ShardWriter(column, shard)
        for key, _ in read_shard(tiny.store.images, shard):
            writer.add(key, {"npz": npz_bytes(arrays_of(key))})
        writer.commit()
    return column
