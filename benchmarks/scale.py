"""What a large run costs, and how that grows: one table over ranks, shards, workers and parts.

    python benchmarks/scale.py FOLDER
    python benchmarks/scale.py FOLDER --shards 200 2000 --ranks 1 8 --workers 8 32 --parts 1 16     # smaller

Nothing of this needs many machines:

- ranks: the shards that the processes of a training open in an epoch, over the shards of the store. The
  loader's own order is asked rank by rank. Of more than four ranks, four are asked, spread evenly.
- shards: what rank 0, another rank and `densecli info` need to open a store. See startup.py, which fabricates
  the stores in FOLDER.
- workers: the CPU time of a build's main process. See workers.py, whose workers do nothing.
- parts: memory and time of a build's main process over all parts of a store of a billion photos. See
  listing_parts.py, where numbers stand for the photos.

The law is n to the power of log(last / first) / log(n_last / n_first): 0 is constant, 1 is proportional.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import listing_parts
import numpy as np
import startup
import workers

from densecli.core.tables import table
from densecli.shards.lanes import Lanes, number_of_lanes

BATCH, WINDOW, SAMPLES = 48, 4, 256
SA_1B = 45_000  # shards
HEADS = ["what", "n", "opens a shard", "requests", "MB", "seconds", "CPU, ms a shard", "law"]


class Row(NamedTuple):
    """A line of the table; None where nothing is measured. The last figure has the law."""

    what: str
    n: int
    opens: float | None = None
    requests: int | None = None
    megabytes: float | None = None
    seconds: float | None = None
    cpu_ms: float | None = None

    def cells(self) -> list[str]:
        """The texts of the figures."""
        formats = ("{:.2f}", "{:,}", "{:.1f}", "{:.2f}", "{:.2f}")
        return [
            self.what,
            f"{self.n:,}",
            *("" if v is None else form.format(v) for form, v in zip(formats, self[2:], strict=True)),
        ]


def opens(ranks: int, shards: int) -> float:
    """How often a shard is opened in an epoch, by all ranks together, estimated from four of them."""
    lanes = Lanes([SAMPLES] * shards, number_of_lanes(shards, BATCH, ranks), seed=0, window=WINDOW)
    asked = range(0, ranks, max(1, ranks // 4))
    counts = [_opened(lanes, rank, ranks) for rank in asked]
    return sum(counts) / len(counts) * ranks / shards


def _opened(lanes: Lanes, rank: int, ranks: int) -> int:
    """Shards that one rank opens: each anew for every block of a lane in which it has samples of it."""
    seen: set[tuple[int, ...]] = set()
    for taken in lanes.shares(0, batch=BATCH * ranks, rank=rank, world_size=ranks):
        seen.update(map(tuple, np.unique(taken[:3], axis=1).T.tolist()))
    return len(seen)


def of_shards(folder: Path, shards: int) -> list[Row]:
    """What opening a store of so many shards takes, each in a process of its own."""
    root = folder / f"{shards}"
    startup.fabricate(root, shards, SAMPLES)
    names = {"train": "open, rank 0", "rank": "open, other ranks", "info": "info"}
    rows = []
    for what, name in names.items():
        command = [sys.executable, startup.__file__, str(root), "--measure", what]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(
            Row(
                name,
                shards,
                requests=found["requests"],
                megabytes=found["MB"],
                seconds=found["seconds"],
            )
        )
    return rows


def of_parts(parts: list[int]) -> list[Row]:
    """What building so many parts takes of the main process, in a process of its own."""
    command = [sys.executable, listing_parts.__file__, "--parts", *map(str, parts)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [
        Row("photos in parts", each["photos"], megabytes=each["MB"], seconds=each["seconds"])
        for each in found
    ]


def law(rows: list[Row]) -> str:
    """The exponents of the figures of one subject but seconds, from the fewest to the most."""
    first, last = rows[0], rows[-1]
    if first.n == last.n:
        return ""
    figures = [(row.opens, row.requests, row.megabytes, row.cpu_ms) for row in (first, last)]
    powers = [
        f"n^{math.log(b / a) / math.log(last.n / first.n):.2f}"
        for a, b in zip(*figures, strict=True)
        if a and b
    ]
    return " ".join(powers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the fabricated stores: 2 GB for 45,000 shards")
    parser.add_argument("--shards", type=int, nargs="+", default=[2000, 45000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8, 64, 1024])
    parser.add_argument("--workers", type=int, nargs="+", default=[128, 256])
    parser.add_argument(
        "--parts", type=int, nargs="+", default=[1, 10, 100, 1563], help="of 640,000 photos each"
    )
    options = parser.parse_args()
    # Ten shards and more a lane, as number_of_lanes has it.
    shards = {n: min(SA_1B, 160 * n) for n in options.ranks}
    of_ranks = [Row("opens in an epoch", n, opens=opens(n, shards[n])) for n in options.ranks]
    opened = [of_shards(options.folder, n) for n in options.shards]
    made = [workers.measure(n, max(1000, 4 * n)) for n in options.workers]
    of_workers = [Row("main process of a build", f.workers, cpu_ms=f.cpu_ms) for f in made]
    lines = [HEADS]
    of_photos = of_parts(options.parts)
    for subject in (of_ranks, *map(list, zip(*opened, strict=True)), of_workers, of_photos):
        lines += [[*row.cells(), ""] for row in subject[:-1]] + [[*subject[-1].cells(), law(subject)]]
    print(table(lines))


if __name__ == "__main__":
    main()
