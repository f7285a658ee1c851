"""Memory and time of the main process of a build over all parts of a store of a billion photos.

    python benchmarks/listing_parts.py [--parts 1 10 100 1563] [--tars-per-part 64] [--photos-per-tar 10000]

Runs `build_parts` with numbers in place of photos: the tars are names alone, a scan of a tar gives a table
that is made up, and the build of a part lists it, cuts its first, middle and last shard, and lets it go.
While a part is "built", the next one is listed in a thread, as in a build. The index of the listings is in
memory and keeps those of two parts, where that of a build is in the store. Prints, after each of `--parts`,
the photos so far, the resident set and the largest so far, both beyond what it was after the imports, and the
seconds.
"""

import argparse
import json
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from densecli.core.find import Entry
from densecli.core.passed_over import PassedOver
from densecli.pipeline import build_parts as parts
from densecli.pipeline import build_request
from densecli.pipeline.build_request import prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.sources import tars
from densecli.pipeline.sources.tars import Scanned, table
from densecli.pipeline.summary import Summary, describe

SHARD = 256


class MemoryIndex:
    """Stands in for `Index`: keeps the listings of the last tars in memory."""

    def __init__(self, entries: int) -> None:
        self._most = entries
        self._entries: OrderedDict[str, bytes] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def get(self, name: str) -> bytes | None:
        return self._entries.get(name)

    def put(self, name: str, data: bytes) -> None:
        self._entries[name] = data
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)


def memory_mb(name: str) -> float:
    """The resident set of this process (VmRSS), or its largest one since `forget_peak` (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def forget_peak() -> None:
    """Imports have a peak of their own."""
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def fabricated(tars_per_part: int, photos: int, index: MemoryIndex) -> Iterator[None]:
    """Lists tars that do not exist, of as many photos each."""
    rows = table([(f"{i:05d}.jpg".encode(), 512 + 100_864 * i, 100_000, 0, 0) for i in range(photos)])

    def scan(*_: object, **__: object) -> Scanned:
        return rows.copy(), PassedOver()

    with (
        mock.patch.object(tars, "scan_tar", scan),
        mock.patch.object(build_request, "Index", return_value=index),
    ):
        yield


def measure(checkpoints: list[int], tars_per_part: int, photos: int) -> list[dict[str, Any]]:
    """Lists as many parts as the last checkpoint says.

    Returns:
        For each checkpoint `parts`, `photos`, `MB`, `most MB`, `seconds` and `CPU seconds`.
    """
    last = max(checkpoints)
    forget_peak()
    before, start, rows = memory_mb("VmHWM"), time.perf_counter(), list[dict[str, Any]]()
    cpu = time.process_time()
    found = {f"{i:06d}.tar": Entry(photos * 100_864, str(i), False) for i in range(last * tars_per_part)}
    done = 0

    def build(config: BuildConfig, group: Mapping[str, Entry], *_: object) -> Summary:
        nonlocal done
        request, source = prepare(config, group)
        shards = request.store.shard_names
        for shard in (shards[0], shards[len(shards) // 2], shards[-1]):
            unit = unit_of(source, shard, SHARD)
            assert len(list(unit.items)) == min(SHARD, len(source.items) - int(shard) * SHARD)
        done += 1
        if done in checkpoints:
            rows.append(
                {
                    "parts": done,
                    "photos": done * tars_per_part * photos,
                    "MB": round(memory_mb("VmRSS") - before, 1),
                    "most MB": round(memory_mb("VmHWM") - before, 1),
                    "seconds": round(time.perf_counter() - start, 1),
                    "CPU seconds": round(time.process_time() - cpu, 1),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
        columns = request.columns()
        sums = {"shards": len(shards), "samples": len(source.items), "skipped": {}, "seconds": {"total": 1.0}}
        return describe(request.store, columns, [[] for _ in columns], status="built") | sums

    index = MemoryIndex(2 * tars_per_part)
    with (
        tempfile.TemporaryDirectory() as folder,
        fabricated(tars_per_part, photos, index),
        mock.patch.object(parts, "find_tars", return_value=found),
        mock.patch.object(parts, "build_shards", build),
    ):
        summary = parts.build_parts(
            BuildConfig(
                dataset="webdataset",
                data=folder,
                store=f"{folder}/store",
                shard_size=SHARD,
                tars_per_part=tars_per_part,
                device="cpu",
            )
        )
    assert summary["samples"] == last * tars_per_part * photos
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 10, 100, 1563], help="when to print")
    parser.add_argument("--tars-per-part", type=int, default=64)
    parser.add_argument("--photos-per-tar", type=int, default=10_000)
    args = parser.parse_args()
    measure(args.parts, args.tars_per_part, args.photos_per_tar)


if __name__ == "__main__":
    main()
