"""What it takes to open a store: seconds, memory and requests against the number of shards.

    python benchmarks/startup.py FOLDER [--shards 2000 45000] [--samples 256] [--ranks 2]

Fabricates a store of three columns for each number of shards: photos with two members a sample, boxes and
labels with one. The receipts, and with them the manifests, are as large as real ones. The tars are empty
files: opening a store reads none. Each cell is measured in a process of its own:

- train: what the first process of a training does before its first shard, and what every other one then gets;
- info: what `densecli info` reads;
- find: what `densecli preview KEY` reads to find its shard.

`before` opens the same store with its manifests set aside. Requests are those that an object store would get:
one a file, one for every 1,000 names of a listing. Memory is what the resident set grows by, after everything
is imported, and its peak.
"""

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from densecli.core import fs
from densecli.core.tables import table
from densecli.shards.find_shard import find_shard
from densecli.shards.info import describe
from densecli.shards.keys import keys_digest
from densecli.shards.manifest import FILE, manifest_url
from densecli.shards.reader import StoreReader
from densecli.shards.receipt_totals import publish
from densecli.shards.receipts import BLOCK, Receipt
from densecli.shards.shard_table import ShardTable
from densecli.shards.specs import DatasetIdentity
from densecli.shards.store import Column, Store

# Names in a page of an object store's listing.
PAGE = 1000


def fabricate(root: Path, shards: int, samples: int) -> Store:
    """Writes a store whose tars are empty, with its manifests, or takes the one that is there."""
    if (root / "done").exists():
        store = Store.open(root)
        # A run may have been ended while they were set aside.
        put_back(store)
        return store
    shutil.rmtree(root, ignore_errors=True)
    dataset: DatasetIdentity = {"name": "fabricated", "split": "", "digest": "0", "n": samples * shards}
    store = Store.create(root, dataset, 512, [samples] * shards)
    regions = store.add_column("regions", "grid-densevlm", {"plan": "grid"})
    labels = store.add_column("targets", "labels", {"regions": regions.key, "target": {"name": "labels"}})
    rng = np.random.default_rng(0)
    for column in (store.images, regions, labels):
        extensions = ("jpg", "json") if column.kind == "images" else ("npz",)
        Path(column.url).mkdir(parents=True, exist_ok=True)
        for i, shard in enumerate(store.shard_names):
            # Without fsync: a benchmark's store may be lost.
            Path(column.tar_url(shard)).touch()
            keys = [f"sa_{samples * i + j}" for j in range(samples)]
            receipt = _receipt(column, shard, keys, extensions, rng)
            Path(column.receipt_url(shard)).write_bytes(receipt.to_json())
        publish(column)
    (root / "done").touch()
    return store


def _receipt(
    column: Column, shard: str, keys: list[str], extensions: tuple[str, ...], rng: np.random.Generator
) -> Receipt:
    sizes = rng.integers(4_000, 70_000, len(keys) * len(extensions))
    ends = np.cumsum(BLOCK + -(-sizes // BLOCK) * BLOCK)
    first = ends - -(-sizes // BLOCK) * BLOCK
    names = [f"{key}.{extension}" for key in keys for extension in extensions]
    members = dict(zip(names, zip(first.tolist(), sizes.tolist(), strict=True), strict=True))
    return Receipt(
        shard=shard,
        column=column.key,
        samples=len(keys),
        keys_digest=keys_digest(keys),
        bytes=int(-(-(ends[-1] + 2 * BLOCK) // 10240) * 10240),
        xxh3=f"{int(rng.integers(0, 2**63)):016x}",
        members=members,
        error={"max_tv": 0.001, "mean_tv": 0.0001},
        seconds={"decode": float(rng.random()), "teacher": float(rng.random()), "write": float(rng.random())},
    )


def count_requests() -> list[int]:
    """Counts the requests from now on, in the list's only number."""
    counted = [0]
    get, listing, names, info = fs._get_once, fs._listing, fs._names, fs.file

    def counting(
        call: Callable[..., Any], pages: Callable[[Any], int] = lambda result: 1
    ) -> Callable[..., Any]:
        def counted_call(*args: Any, **words: Any) -> Any:
            result = call(*args, **words)
            counted[0] += pages(result)
            return result

        return counted_call

    fs._get_once = counting(get)
    fs.file = counting(info)
    fs._listing = counting(listing, lambda found: -(-max(1, len(found)) // PAGE))
    fs._names = counting(names, lambda found: -(-max(1, len(found)) // PAGE))
    return counted


def columns_of(store: Store) -> list[Column]:
    return [store.images, *store.columns()]


def open_store(root: str) -> tuple[Store, list[Column], ShardTable]:
    """What the first process does at the start of a training."""
    store = Store.open(root)
    columns = columns_of(store)
    return store, columns, ShardTable.of(columns)


def measure(what: str, root: str) -> dict[str, float]:
    """Does one thing in this process and says what it took."""
    sent = pickle.dumps(open_store(root)) if what == "rank" else b""
    if what != "rank":
        # pyarrow takes 41 MB of the process that reads the manifests, whatever their size.
        import pyarrow.parquet  # noqa: F401

    def call() -> object:
        if what == "info":
            return describe(Store.open(root))
        if what == "find":
            store = Store.open(root)
            return find_shard(store, f"sa_{sum(store.shard_sizes) // 2}")
        _, columns, shard_table = pickle.loads(sent) if what == "rank" else open_store(root)
        return StoreReader(columns, table=shard_table, lanes=8)

    before, start = _memory("VmRSS"), time.perf_counter()
    kept = call()
    found = {
        "seconds": time.perf_counter() - start,
        "MB": _memory("VmRSS") - before,
        "peak MB": _memory("VmHWM") - before,
        "sent MB": len(sent) / 1e6,
    }
    # Once more, as if the folder were in an object store.
    requests = count_requests()
    fs.is_local = lambda url: False
    call()
    assert kept is not None
    return found | {"requests": requests[0]}


def _memory(which: str) -> float:
    """Megabytes of this process."""
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(which)]
    return int(line.split()[1]) * 1024 / 1e6


def set_aside(store: Store, suffix: str = ".aside") -> None:
    """Renames the manifests, so that the store is one of before."""
    for column in columns_of(store):
        Path(manifest_url(column)).rename(Path(column.url, f"{FILE}{suffix}"))


def put_back(store: Store, suffix: str = ".aside") -> None:
    """Undoes `set_aside`."""
    for column in columns_of(store):
        if (aside := Path(column.url, f"{FILE}{suffix}")).exists():
            aside.rename(manifest_url(column))


def run(root: Path, shards: int, samples: int) -> list[list[str]]:
    """The rows of the table for one number of shards."""
    store = fabricate(root, shards, samples)
    rows = []
    for when in ("before", "now"):
        if when == "before":
            set_aside(store)
        try:
            for what in ("train", "rank", "info", "find"):
                done = subprocess.run(
                    [sys.executable, __file__, str(root), "--measure", what],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                found = json.loads(done.stdout)
                rows.append(
                    [
                        f"{shards:,}",
                        what,
                        when,
                        f"{found['seconds']:.2f}",
                        f"{found['MB']:.1f}",
                        f"{found['peak MB']:.1f}",
                        f"{found['requests']:,}",
                        f"{found['sent MB']:.2f}",
                    ]
                )
        finally:
            if when == "before":
                put_back(store)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, nargs="+", default=[2000, 45000])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--measure", choices=["train", "rank", "info", "find"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, str(options.folder))))
        return
    header = ["shards", "what", "", "seconds", "MB", "peak MB", "requests", "sent MB"]
    rows = [row for n in options.shards for row in run(options.folder / f"{n}", n, options.samples)]
    print(table([header, *rows]))


if __name__ == "__main__":
    main()
