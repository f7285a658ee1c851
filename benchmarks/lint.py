"""The rate of `densecli lint` beside that of the disk: MB/s of a store that is read from the disk each time.

    python benchmarks/lint.py FOLDER [--shards 48] [--mb 20] [--workers 1 2 8]

Writes a store of photos alone, of random bytes: 256 samples a shard. Before each reading the pages of the
tars are dropped from memory. `read` only reads every tar, with as many threads; `read + xxh3` also computes
the checksum. The contenders take turns, and the medians are printed.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import xxhash

from densecli.core.tables import table
from densecli.shards.lint import lint
from densecli.shards.receipt_totals import publish
from densecli.shards.specs import DatasetIdentity
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter

SAMPLES = 256
TURNS = 3


def write(root: Path, shards: int, mb: float) -> Store:
    """The store, or the one that is there."""
    dataset: DatasetIdentity = {"name": "random", "split": "", "digest": "0", "n": SAMPLES * shards}
    store = Store.create(root, dataset, 512, [SAMPLES] * shards)
    rng = np.random.default_rng(0)
    for shard in store.images.missing():
        writer = ShardWriter(store.images, shard)
        for i in range(SAMPLES):
            photo = rng.bytes(int(mb * 1e6 / SAMPLES))
            writer.add(f"sa_{int(shard) * SAMPLES + i}", {"jpg": photo, "json": b"{}"})
        writer.commit()
    publish(store.images)
    return store


def forget(paths: list[str]) -> None:
    """Drops the pages of files from memory."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: str, checksum: bool) -> None:
    """Reads a file in pieces."""
    digest, piece = xxhash.xxh3_64(), bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while n := file.readinto(piece):
            if checksum:
                digest.update(memoryview(piece)[:n])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=48)
    parser.add_argument("--mb", type=float, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    options = parser.parse_args()
    store = write(options.folder, options.shards, options.mb)
    paths = [store.images.tar_url(shard) for shard in store.shard_names]
    size = sum(os.path.getsize(path) for path in paths) / 1e6

    def read_all(workers: int, checksum: bool) -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda path: read(path, checksum), paths))

    def lint_all(workers: int) -> None:
        assert list(lint(store, workers=workers)) == []

    contenders: dict[tuple[str, int], Callable[[], None]] = {}
    for n in options.workers:
        contenders["read", n] = partial(read_all, n, False)
        contenders["read + xxh3", n] = partial(read_all, n, True)
        contenders["lint", n] = partial(lint_all, n)
    rates: dict[tuple[str, int], list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, contender in contenders.items():
            forget(paths)
            start = time.perf_counter()
            contender()
            rates[name].append(size / (time.perf_counter() - start))
    rows = [
        [str(n), *(f"{statistics.median(rates[what, n]):,.0f}" for what in ("read", "read + xxh3", "lint"))]
        for n in options.workers
    ]
    print(table([["threads", "read MB/s", "read + xxh3", "lint"], *rows]))


if __name__ == "__main__":
    main()
