"""Samples per second of reading photos, alone and with decoding, compared with webdataset, litdata and MDS.

    pip install -r benchmarks/requirements.txt
    python benchmarks/loader.py --photos data/coco/train2017 [--samples 2048] [--runs 5]

All libraries read the same JPEGs (512 px canvas, quality 95) from a local disk with a warm page cache, in one
process and without workers. `3 columns` are photos, boxes and top-20 labels of 316 categories; the labels are
random because only their size matters. densecli shuffles and checks every byte against its receipt. The
others read in order and check nothing, which is their fastest way. Runs are interleaved, each in a process of
its own. The time is that of one epoch (1,024 samples when decoding), without imports and without opening the
data set.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from densecli.core.tables import table
from densecli.shards.codecs import TopK
from densecli.shards.geometry import Canvas
from densecli.shards.joined import decode_image
from densecli.shards.reader import StoreReader
from densecli.shards.regions import region_plan
from densecli.shards.specs import DatasetIdentity
from densecli.shards.store import Column, Store
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes

if TYPE_CHECKING:
    from densecli.train.dataloader import Loader

CANVAS, SHARD, CATEGORIES = 512, 256, 316
DECODE = 1024  # samples of a run that decodes


def write_store(folder: Path, photos: Path, samples: int) -> None:
    rng = np.random.default_rng(0)
    canvas, plan = Canvas(CANVAS), region_plan("grid-paper")
    # tail_mass=1.0: exactly k probabilities of each cell, as `densecli plan` assumes.
    codec = TopK(things=(True,) * 80 + (False,) * (CATEGORIES - 80), k=20, tail_mass=1.0, dtype="fp16")
    sizes = [min(SHARD, samples - first) for first in range(0, samples, SHARD)]
    dataset: DatasetIdentity = {"name": "photos", "split": "", "digest": "", "n": samples}
    store = Store.create(folder / "store", dataset, CANVAS, sizes)
    regions = store.add_column("regions", plan.name, plan.spec)
    target = {"name": "labels", "tau": 0.01, "categories": [str(i) for i in range(CATEGORIES)]}
    spec = {"target": target, "codec": codec.spec, "regions": regions.key}
    labels = store.add_column("targets", "noise", spec)

    def encoded(path: Path) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
        with Image.open(path) as photo:
            about = {"width": photo.width, "height": photo.height}
            jpg = jpg_bytes(canvas.resize(photo))
        cells = plan.boxes(canvas.valid_box(**about))
        p = rng.dirichlet(np.full(CATEGORIES, 0.05), len(cells.boxes)).astype(np.float32)
        boxes = npz_bytes({"boxes": cells.boxes, "offsets": cells.offsets})
        return {"jpg": jpg, "json": json_bytes(about)}, {"npz": boxes}, {"npz": npz_bytes(codec.encode(p)[0])}

    paths = sorted(photos.glob("*.jpg"))
    pool = [encoded(path) for path in paths[: min(len(paths), samples)]]
    for first, size, shard in zip(range(0, samples, SHARD), sizes, store.shard_names, strict=True):
        writers = [ShardWriter(column, shard) for column in (store.images, regions, labels)]
        for i in range(first, first + size):
            for writer, parts in zip(writers, pool[i % len(pool)], strict=True):
                writer.add(f"{i:08d}", parts)
        for writer in writers:
            writer.commit()


def stored_photos(folder: Path) -> Iterator[tuple[str, bytes]]:
    images = Store.open(folder / "store").images
    for shard in images.shard_names:
        yield from ((key, parts["jpg"]) for key, parts in read_shard(images, shard))


def write_litdata(folder: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    (folder / "litdata").mkdir()
    writer = BinaryWriter(str(folder / "litdata"), chunk_bytes="64MB")
    for i, (key, jpg) in enumerate(stored_photos(folder)):
        writer[i] = {"key": key, "jpg": jpg}
    writer.done()
    writer.merge()


def write_mds(folder: Path) -> None:
    from streaming import MDSWriter

    columns = {"key": "str", "jpg": "bytes"}
    with MDSWriter(out=str(folder / "mds"), columns=columns, size_limit=1 << 26) as writer:
        for key, jpg in stored_photos(folder):
            writer.write({"key": key, "jpg": jpg})


def columns_of(folder: Path) -> list[Column]:
    store = Store.open(folder / "store")
    return [store.images, *store.columns()]


def members(reader: StoreReader) -> Iterator[memoryview]:
    for record in reader.iter(0):
        # Members are located when they are read: read them all, and yield the photo, which is the first.
        for files in reversed(record.parts.values()):
            data = files["jpg" if "jpg" in files else "npz"]
        yield data


def densecli(folder: Path, columns: int) -> Iterator[memoryview]:
    return members(StoreReader(columns_of(folder)[:columns]))


def one_by_one(folder: Path) -> Iterator[memoryview]:
    """Reads three columns side by side, without joining them by key."""
    first, *others = [members(StoreReader([column])) for column in columns_of(folder)]
    for jpg in first:
        for other in others:
            next(other)
        yield jpg


def trainer(folder: Path) -> "tuple[Loader, Store]":
    # Imports torch, which would add seconds to the start of every other contender.
    from densecli.train.dataloader import Loader, LoaderConfig

    store = Store.open(folder / "store")
    labels = store.find("targets", "noise")
    config = LoaderConfig(batch_size=16, workers=0)
    return Loader(store, store.regions_of(labels), {"labels": labels}, config), store


def webdataset(folder: Path) -> Iterable[bytes]:
    import webdataset as wds

    urls = [str(path) for path in sorted((folder / "store" / "images").glob("*.tar"))]
    return (sample["jpg"] for sample in wds.WebDataset(urls, shardshuffle=False))


def litdata(folder: Path) -> Iterable[bytes]:
    from litdata import StreamingDataset

    return (sample["jpg"] for sample in StreamingDataset(str(folder / "litdata")))


def mds(folder: Path) -> Iterable[bytes]:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder / "mds"), batch_size=1, shuffle=False)
    return (sample["jpg"] for sample in dataset)


READING: dict[str, Callable[[Path], Iterable[bytes | memoryview]]] = {
    "densecli, 1 column": lambda folder: densecli(folder, 1),
    "densecli, 3 columns": lambda folder: densecli(folder, 3),
    "densecli, 3 columns, not joined": one_by_one,
    "webdataset": webdataset,
    "litdata": litdata,
    "mosaicml-streaming": mds,
}
READ, DECODED, BATCHES = "read", "photo decoded", "batches of the trainer"
BARE = "bare loop, bytes in memory"
CONTENDERS = [
    *((READ, name) for name in READING),
    (DECODED, BARE),
    *((DECODED, name) for name in READING),
    (BATCHES, BARE),
    (BATCHES, "densecli, 3 columns"),
]


def samples_per_s(folder: Path, what: str, name: str, samples: int) -> tuple[float, float]:
    """Samples per second of wall time and of CPU time; other processes disturb the second less."""
    if what == BATCHES:
        loader, store = trainer(folder)
        if name == BARE:
            records = list(StoreReader([store.images, loader.regions, *loader.targets.values()]).iter(0))
            items: Iterable = (loader.decode(record, 0) for record in records)
        else:
            items = (key for batch in loader.batches(0) for key in batch.keys)
    else:
        jpgs = [jpg for _, jpg in stored_photos(folder)] if name == BARE else READING[name](folder)
        items = jpgs if what == READ else map(decode_image, jpgs)
    start, cpu = time.perf_counter(), time.process_time()
    n = sum(1 for _ in islice(items, samples if what == READ else min(samples, DECODE)))
    return n / (time.perf_counter() - start), n / (time.process_time() - cpu)


def installed(name: str) -> str | None:
    try:
        return version(name.split(",", maxsplit=1)[0])
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        store, what, name = args.one
        print(json.dumps(samples_per_s(Path(store), what, name, args.samples)))
        return
    peers = {name: installed(name) for name in ("webdataset", "litdata", "mosaicml-streaming")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_store(folder, args.photos, args.samples)
        for name, write in (("litdata", write_litdata), ("mosaicml-streaming", write_mds)):
            if peers[name]:
                write(folder)
        contenders = [c for c in CONTENDERS if peers.get(c[1], "densecli")]
        rates: dict[tuple[str, str], list[tuple[float, float]]] = {contender: [] for contender in contenders}
        for _ in range(args.runs):
            for contender in contenders:
                command = [sys.executable, __file__, "--photos", ".", "--one", temporary, *contender]
                command += ["--samples", str(args.samples)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
                rates[contender].append(json.loads(done.stdout.splitlines()[-1]))
    rows = [["", "", "samples/s", "range", "samples a CPU second", "range"]]
    for (what, name), runs in rates.items():
        row = [what, name]
        for r in zip(*runs, strict=True):
            row += [f"{statistics.median(r):,.0f}", f"{min(r):,.0f} to {max(r):,.0f}"]
        rows.append(row)
    print(table(rows))
    print({"python": sys.version.split()[0], "pillow": version("pillow"), **peers})


if __name__ == "__main__":
    main()
