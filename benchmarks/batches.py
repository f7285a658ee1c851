"""Batches of the trainer beside a bare loop that decodes the same photos; threads beside processes.

    python benchmarks/batches.py [--rounds 40]

One store of made-up photos (512 px, quality 95) with boxes and top-20 labels of 316 categories, in a warm
page cache. The contenders take turns of one batch each in one process, in a new order in every round, and the
ratio of two of them is the median of the rounds' ratios: what else the machine does then hits both alike. CPU
time is that of the whole process, reading threads included.

- `photos`: decodes a batch's JPEGs into a canvas that is used again.
- `samples`: also takes boxes and labels from memory, sample by sample.
- `trainer`: the batches of a training without workers, from the files.
- `threads`, `processes`: the same with --workers, as the trainer does it and by torch's DataLoader. Their
  seconds are of the clock: of work that is done ahead, CPU time says nothing. A round takes as many batches
  as are prefetched, so that nobody lives on what was there before.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle
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
from densecli.train.dataloader import Loader, LoaderConfig
from densecli.train.datasets import SampleStream, collate

BATCH = 16
SIZE = (640, 480)


def write_photos(folder: Path, count: int) -> None:
    """Photos whose JPEGs have the size of real ones: soft shapes, and grain."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            SIZE, Image.BICUBIC
        )
        grain = rng.normal(0, 6, (SIZE[1], SIZE[0], 1))
        pixels = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=95)


def endless(loader: Loader) -> Iterator[int]:
    """The numbers of samples of a loader's whole batches, without end."""
    for epoch in count():
        yield from (len(batch.keys) for batch in loader.batches(epoch) if len(batch.keys) == BATCH)


def from_processes(root: str, workers: int) -> Iterator[int]:
    loader = DataLoader(
        SampleStream(root, ["noise"]),
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn",
        persistent_workers=True,
        drop_last=True,
    )
    while True:
        yield from (len(batch.keys) for batch in loader)


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
    parser.add_argument("--samples", type=int, default=256)
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
            print(ahead(loader, store, args.workers, args.rounds))


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

    contenders = {"photos": decode_photos, "samples": decode_samples, "trainer": lambda: next(batches)}
    return printed(alternate(contenders, rounds, time.process_time), "samples", BATCH)


def ahead(loader: Loader, store: Store, workers: int, rounds: int) -> str:
    """Threads and processes that work ahead, by the clock."""
    config = LoaderConfig(batch_size=BATCH, workers=workers)
    threads = endless(Loader(store, loader.regions, loader.targets, config))
    processes = from_processes(store.root, workers)
    # DataLoader prefetches two batches a worker; the trainer's threads two batches.
    taken = 4 * workers

    def take(batches: Iterator[int]) -> None:
        for _ in range(taken):
            next(batches)

    contenders = {"threads": lambda: take(threads), "processes": lambda: take(processes)}
    return printed(alternate(contenders, rounds, time.perf_counter), "threads", taken * BATCH)


if __name__ == "__main__":
    main()
