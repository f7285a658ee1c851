"""Batches of the trainer beside a bare loop that decodes the same photos; threads beside processes.

    python benchmarks/batches.py [--rounds 40]

One store of made-up photos (512 px, quality 95) with boxes and top-20 labels of 316 categories, in a warm
page cache. The contenders take turns of one batch each in one process, in a new order in every round, and the
ratio of two of them is the median of the rounds' ratios: what else the machine does then hits both alike. CPU
time is that of the whole process, reading threads included.

- `photos`: decodes a batch's JPEGs into a canvas that is used again.
- `samples`: also takes boxes and labels from memory, sample by sample.
- `trainer`: the batches of a training without workers, from the files.

With --workers, in rounds of 48 batches each:

- `threads`: the trainer's.
- `processes`: the same samples by torch's DataLoader, collated in its processes.

CPU milliseconds a photo are those of the process and of its children, from the fifth batch on: what is made
ahead at the beginning is made ahead at the end, too. Photos per second are by the clock. The small operations
are what a training step launches; between batches they are launched here, and their clock time says how long
the workers keep the interpreter or the cores from it.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count, cycle, repeat
from pathlib import Path

import numpy as np
import torch
from loader import trainer, write_store
from PIL import Image
from torch.utils.data import DataLoader

from densecli.core.tables import table
from densecli.shards.joined import decode_image
from densecli.shards.reader import StoreReader
from densecli.shards.store import Store
from densecli.train.dataloader import Loader
from densecli.train.datasets import SampleStream, collate
from densecli.train.trainer_config import LoaderConfig

BATCH, ROUND = 16, 48
SIZE = (640, 480)


def write_photos(folder: Path, count: int) -> None:
    """Photos whose JPEGs have the size of real ones: soft shapes, and grain."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 6, (SIZE[1], SIZE[0], 1))
        pixels = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=95)


def endless(loader: Loader) -> Generator[int]:
    """The numbers of samples of a loader's whole batches, without end."""
    for epoch in count():
        yield from (len(batch.keys) for batch in loader.batches(epoch) if len(batch.keys) == BATCH)


@contextmanager
def from_threads(root: str, workers: int) -> Iterator[Iterator[int]]:
    store = Store.open(root)
    labels = store.find("targets", "noise")
    config = LoaderConfig(batch_size=BATCH, workers=workers)
    with closing(endless(Loader(store, store.regions_of(labels), {"labels": labels}, config))) as batches:
        yield batches


@contextmanager
def from_processes(root: str, workers: int) -> Iterator[Iterator[int]]:
    loader = DataLoader(
        SampleStream(root, ["noise"]),
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn",
        persistent_workers=True,
        drop_last=True,
    )

    def batches() -> Iterator[int]:
        while True:
            yield from (len(batch.keys) for batch in loader)

    # The processes end with the last reference to the loader.
    yield batches()


@contextmanager
def nothing(root: str, workers: int) -> Iterator[Iterator[int]]:
    yield repeat(0)


def alternate(
    contenders: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """The seconds of every round, after two that do not count."""
    names, rng = list(contenders), np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 2):
        for name in rng.permutation(names):
            started = clock()
            contenders[name]()
            if number > 1:
                seconds[name].append(clock() - started)
    return seconds


def printed(seconds: dict[str, list[float]], base: str, photos: int) -> str:
    """A row for each contender: photos per second, and how fast it is beside `base`."""
    rows = [["", "photos/s", f"of {base}", "quartiles"]]
    for name, each in seconds.items():
        ratios = [b / a for a, b in zip(each, seconds[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rate = photos / statistics.median(each)
        rows.append([name, f"{rate:,.0f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}"])
    return table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--worker-rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=["alone", "workers"], default=["alone", "workers"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "photos", 32)
        write_store(folder, folder / "photos", args.samples)
        loader, store = trainer(folder)
        if "alone" in args.parts:
            print(alone(loader, store, args.rounds))
        if "workers" in args.parts:
            print(ahead(store.root, args.workers, args.worker_rounds))


def alone(loader: Loader, store: Store, rounds: int) -> str:
    """Contenders without workers, by CPU time."""
    records = list(StoreReader([store.images, loader.regions, *loader.targets.values()]).iter(0))
    photos, samples, batches = cycle(records), cycle(records), endless(loader)
    canvas, slots = loader._canvas, np.zeros((BATCH, store.canvas, store.canvas, 3), np.uint8)

    def decode_photos() -> None:
        for slot in slots:
            canvas.pad(decode_image(next(photos).parts["images"]["jpg"]), slot)

    def decode_samples() -> None:
        for slot in slots:
            loader.decode(next(samples), 0, slot)

    contenders: dict[str, Callable[[], object]] = {
        "photos": decode_photos,
        "samples": decode_samples,
        "trainer": lambda: next(batches),
    }
    return printed(alternate(contenders, rounds, time.process_time), "samples", BATCH)


def ahead(root: str, workers: int, rounds: int) -> str:
    """Threads and processes that work ahead, and the small operations without either."""
    contenders = {"neither": nothing, "threads": from_threads, "processes": from_processes}
    found: dict[str, list[Figures]] = {name: [] for name in contenders}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(contenders)):
            found[name].append(figures(contenders[name], root, workers))
    rows = [["", "CPU ms a photo", "photos/s", "small operations, ms", "first batch, s"]]
    for name, runs in found.items():
        each = [*zip(*runs, strict=True)]
        medians = [f"{statistics.median(x):.2f} ({min(x):.2f} to {max(x):.2f})" for x in each]
        rows.append([name, *(["", "", medians[2], ""] if name == "neither" else medians)])
    return table(rows)


Figures = tuple[float, float, float, float]
Source = Callable[[str, int], AbstractContextManager[Iterator[int]]]


def figures(source: Source, root: str, workers: int) -> Figures:
    """CPU milliseconds a photo, photos per second, milliseconds of the operations, seconds to a batch."""
    started = time.perf_counter()
    with source(root, workers) as batches:
        next(batches)
        first = time.perf_counter() - started
        for _ in range(4):
            next(batches)
        clock, cpu = time.perf_counter(), cpu_seconds()
        for _ in range(ROUND):
            next(batches)
        clock, cpu = time.perf_counter() - clock, cpu_seconds() - cpu
        launched = []
        for _ in range(ROUND):
            next(batches)
            launched.append(launch())
    photos = ROUND * BATCH
    return cpu * 1000 / photos, photos / clock, statistics.median(launched) * 1000, first


def cpu_seconds() -> float:
    """Of this process and its children that are alive."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    # The fields after the name in parentheses; of these, 11 and 12 are user and system time.
    stats = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split() for child in children]
    ticks = sum(int(each[11]) + int(each[12]) for each in stats)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def launch() -> float:
    """The seconds of 2,000 small operations."""
    x = torch.zeros(8)
    started = time.perf_counter()
    for _ in range(2000):
        x.add_(1)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
