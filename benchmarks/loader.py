"""Samples per second of reading photos, alone and with decoding, compared with other libraries.

    pip install -r benchmarks/requirements.txt
    python benchmarks/loader.py --photos data/coco/train2017 [--samples 2048] [--runs 5]

All libraries read the same JPEGs (512 px canvas, quality 95) from a local disk, in one process and without
workers. The page cache holds all files, as a reading from disk leaves them there. `3 columns` are photos,
boxes and top-20 labels of 316 categories; the labels are random because only their size matters. densecli
stores no boxes: one contender computes them of every sample, the others read what is stored. Lance's second
and third column are added by `add_columns`. densecli shuffles and, in a process's first epoch, checks every
byte against its checksum. The others read in order and check nothing, which is their fastest way. densecli
gives views of the mapped tar, whose bytes are touched when somebody decodes them; webdataset and litdata give
copies. One contender copies every photo too. Runs are interleaved, each in a process of its own, which reads
two epochs. The time is that of an epoch (1,024 samples when decoding), without imports and without opening
the data set.
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
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from densecli.core.tables import table
from densecli.shards.codecs import TopK
from densecli.shards.geometry import Canvas
from densecli.shards.joined import decode_image, read_joined
from densecli.shards.reader import StoreReader
from densecli.shards.receipt_totals import publish
from densecli.shards.regions import GridPlan
from densecli.shards.specs import DatasetIdentity
from densecli.shards.store import Column, Store
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes

if TYPE_CHECKING:
    from densecli.train.dataloader import Loader

Epochs = Callable[[int], Iterable[bytes | memoryview]]
"""The photos of an epoch, by its number."""

CANVAS, SHARD, CATEGORIES = 512, 256, 316
DECODE = 1024  # samples of a run that decodes


def write_store(folder: Path, photos: Path, samples: int) -> None:
    rng = np.random.default_rng(0)
    canvas, plan = Canvas(CANVAS), GridPlan("paper")
    # tail_mass=1.0: exactly k probabilities of each cell, as `densecli plan` assumes.
    codec = TopK(things=(True,) * 80 + (False,) * (CATEGORIES - 80), k=20, tail_mass=1.0, dtype="fp16")
    sizes = [min(SHARD, samples - first) for first in range(0, samples, SHARD)]
    dataset: DatasetIdentity = {"name": "photos", "split": "", "digest": "", "n": samples}
    store = Store.create(folder / "store", dataset, CANVAS, sizes)
    regions = store.add_column("regions", plan.name, {**plan.spec, "stored": False})
    target = {"name": "labels", "tau": 0.01, "categories": [str(i) for i in range(CATEGORIES)]}
    spec = {"target": target, "codec": codec.spec, "regions": regions.key}
    labels = store.add_column("targets", "noise", spec)

    def encoded(path: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
        with Image.open(path) as photo:
            valid = canvas.valid_box(photo.width, photo.height)
            about = {"width": photo.width, "height": photo.height, "valid": valid.tolist()}
            jpg = jpg_bytes(canvas.resize(photo))
        cells = plan.boxes(valid)
        p = rng.dirichlet(np.full(CATEGORIES, 0.05), len(cells.boxes)).astype(np.float32)
        return {"jpg": jpg, "json": json_bytes(about)}, {"npz": npz_bytes(codec.encode(p)[0])}

    paths = sorted(photos.glob("*.jpg"))
    pool = [encoded(path) for path in paths[: min(len(paths), samples)]]
    for first, size, shard in zip(range(0, samples, SHARD), sizes, store.shard_names, strict=True):
        writers = [ShardWriter(column, shard) for column in (store.images, labels)]
        for i in range(first, first + size):
            for writer, parts in zip(writers, pool[i % len(pool)], strict=True):
                writer.add(f"{i:08d}", parts)
        for writer in writers:
            writer.commit()
    for column in (store.images, labels):
        publish(column)


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


def write_lance(folder: Path) -> None:
    import lance
    import pyarrow as pa

    rows = list(stored_photos(folder))
    photos = {"key": [key for key, _ in rows], "jpg": pa.array([jpg for _, jpg in rows], pa.large_binary())}
    dataset = lance.write_dataset(pa.table(photos), str(folder / "lance"))
    columns = columns_of(folder)
    for name, column in zip(("boxes", "labels"), columns[1:], strict=True):
        schema = pa.schema([(name, pa.large_binary())])
        batches = (
            pa.record_batch(
                [pa.array([bytes(r.parts[column.part]["npz"]) for r in read_joined(columns, shard)])],
                schema=schema,
            )
            for shard in column.shard_names
        )
        dataset.add_columns(pa.RecordBatchReader.from_batches(schema, batches))


def reread(folder: Path) -> None:
    """Fills the page cache by reading: what is left there by small writes takes twice as long to map."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb", buffering=0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(1 << 20):
                pass


WRITERS = {"litdata": write_litdata, "mosaicml-streaming": write_mds, "pylance": write_lance}


def columns_of(folder: Path) -> list[Column]:
    store = Store.open(folder / "store")
    return [store.images, *store.columns()]


def members(reader: StoreReader, epoch: int, *, compute: bool = False) -> Iterator[memoryview]:
    stored = [column.part for column in reversed(reader.columns) if not column.computed]
    for record in reader.iter(epoch):
        parts = record.parts
        # Members are located when they are read: read them all, and yield the photo, which is the first.
        for part in stored:
            files = parts[part]
            data = files["jpg" if "jpg" in files else "npz"]
        if compute:
            record.regions()
        yield data


def densecli(folder: Path, columns: int, *, compute: bool = False) -> Epochs:
    reader = StoreReader(columns_of(folder)[:columns])
    return lambda epoch: members(reader, epoch, compute=compute)


def copied(folder: Path) -> Epochs:
    """Three columns with their boxes, and each photo as bytes of its own, as webdataset gives it."""
    photos = densecli(folder, 3, compute=True)
    return lambda epoch: map(bytes, photos(epoch))


def one_by_one(folder: Path) -> Epochs:
    """Reads the stored columns side by side, without joining them by key."""
    readers = [StoreReader([column]) for column in columns_of(folder) if not column.computed]

    def photos(epoch: int) -> Iterator[memoryview]:
        first, *others = [members(reader, epoch) for reader in readers]
        for jpg in first:
            for other in others:
                next(other)
            yield jpg

    return photos


def trainer(folder: Path) -> "tuple[Loader, Store]":
    # Imports torch, which would add seconds to the start of every other contender.
    from densecli.train.dataloader import Loader
    from densecli.train.trainer_config import LoaderConfig

    store = Store.open(folder / "store")
    labels = store.find("targets", "noise")
    config = LoaderConfig(batch_size=16, workers=0)
    return Loader(store, store.regions_of(labels), {"labels": labels}, config), store


def webdataset(folder: Path) -> Epochs:
    import webdataset as wds

    urls = [str(path) for path in sorted((folder / "store" / "images").glob("*.tar"))]
    dataset = wds.WebDataset(urls, shardshuffle=False)
    return lambda epoch: (sample["jpg"] for sample in dataset)


def litdata(folder: Path) -> Epochs:
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(folder / "litdata"))
    return lambda epoch: (sample["jpg"] for sample in dataset)


def mds(folder: Path) -> Epochs:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder / "mds"), batch_size=1, shuffle=False)
    return lambda epoch: (sample["jpg"] for sample in dataset)


def lance(folder: Path, columns: int) -> Epochs:
    from lance import dataset

    opened, names = dataset(str(folder / "lance")), ["jpg", "boxes", "labels"][:columns]

    def photos(epoch: int) -> Iterator[memoryview]:
        for batch in opened.to_batches(columns=names, batch_size=48):
            for values in zip(*batch.columns, strict=True):
                photo, *_ = [memoryview(value.as_buffer()) for value in values]
                yield photo

    return photos


READING: dict[str, Callable[[Path], Epochs]] = {
    "densecli, 1 column": lambda folder: densecli(folder, 1),
    "densecli, 3 columns": lambda folder: densecli(folder, 3),
    "densecli, 3 columns, boxes computed": lambda folder: densecli(folder, 3, compute=True),
    "densecli, 3 columns, boxes computed, photo copied": copied,
    "densecli, 3 columns, not joined": one_by_one,
    "webdataset": webdataset,
    "litdata": litdata,
    "mosaicml-streaming": mds,
    "pylance, 1 column": lambda folder: lance(folder, 1),
    "pylance, 3 columns": lambda folder: lance(folder, 3),
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


def samples_per_s(folder: Path, what: str, name: str, samples: int) -> list[tuple[float, float]]:
    """Samples per second of wall time and of CPU time, of each of two epochs.

    Other processes disturb the second number less.
    """
    epochs: Callable[[int], Iterable[Any]]
    if what == BATCHES:
        loader, store = trainer(folder)
        if name == BARE:
            records = list(StoreReader([store.images, loader.regions, *loader.targets.values()]).iter(0))
            epochs = lambda epoch: (loader.decode(record, epoch) for record in records)  # noqa: E731
        else:
            epochs = lambda epoch: (key for batch in loader.batches(epoch) for key in batch.keys)  # noqa: E731
    elif name == BARE:
        jpgs = [jpg for _, jpg in stored_photos(folder)]
        epochs = lambda epoch: jpgs  # noqa: E731
    else:
        epochs = READING[name](folder)
    rates = []
    for epoch in range(2):
        start, cpu = time.perf_counter(), time.process_time()
        items = map(decode_image, epochs(epoch)) if what == DECODED else epochs(epoch)
        n = sum(1 for _ in islice(items, samples if what == READ else min(samples, DECODE)))
        rates.append((n / (time.perf_counter() - start), n / (time.process_time() - cpu)))
    return rates


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
    parser.add_argument("--parts", default=f"{READ},{DECODED},{BATCHES}", help="What to measure.")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        store, what, name = args.one
        print(json.dumps(samples_per_s(Path(store), what, name, args.samples)))
        return
    peers = {name: installed(name) for name in ("webdataset", *WRITERS)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_store(folder, args.photos, args.samples)
        for name, write in WRITERS.items():
            if peers[name]:
                write(folder)
        reread(folder)
        contenders = [
            c
            for c in CONTENDERS
            if peers.get(c[1].split(",")[0], "densecli") and c[0] in args.parts.split(",")
        ]
        rates: dict[tuple[str, str], list[list[tuple[float, float]]]] = {
            contender: [] for contender in contenders
        }
        for _ in range(args.runs):
            for contender in contenders:
                command = [sys.executable, __file__, "--photos", ".", "--one", temporary, *contender]
                command += ["--samples", str(args.samples)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
                rates[contender].append(json.loads(done.stdout.splitlines()[-1]))
    rows = [["", "", "epoch", "samples/s", "range", "samples a CPU second", "range"]]
    for (what, name), runs in rates.items():
        for epoch, of_epoch in zip(("first", "second"), zip(*runs, strict=True), strict=True):
            row = [what, name, epoch]
            for r in zip(*of_epoch, strict=True):
                row += [f"{statistics.median(r):,.0f}", f"{min(r):,.0f} to {max(r):,.0f}"]
            rows.append(row)
    print(table(rows))
    print({"python": sys.version.split()[0], "pillow": version("pillow"), **peers})


if __name__ == "__main__":
    main()
