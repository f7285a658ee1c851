"""The main process's CPU time for a shard, by the number of workers.

    python benchmarks/workers.py                       # 128 and 256 workers, 4,000 shards of 256 photos
    python benchmarks/workers.py --workers 1024 --shards 20000

What runs is the real main process of `build-shards` with all that it does for a shard: it makes units from a
listing of tars, claims them in a store, hands them to workers through Ray, takes in the reports, adds them up
and asks every worker for its pulse. What is simulated are the workers: their teachers cost nothing and write
nothing, and many of them live in one process, because hundreds of processes do not fit into one machine. A
call to any of them goes through Ray as one to a process of its own does. CPU time is that of the process with
its threads, Ray's among them, from the first report to the last.
"""

import argparse
import pickle
import platform
import sys
import time
from collections.abc import Collection
from contextlib import closing
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import ray

from densecli.core.passed_over import PassedOver
from densecli.core.progress import Progress
from densecli.core.signals import Stop
from densecli.core.tables import table
from densecli.pipeline.claims import Claims, shared
from densecli.pipeline.cluster import connected
from densecli.pipeline.config import FailureSettings
from densecli.pipeline.run_units import run_units
from densecli.pipeline.sources.packed import part
from densecli.pipeline.sources.tars import table as rows_of
from densecli.pipeline.sources.volumes import Listing, Volume
from densecli.pipeline.summary import Totals
from densecli.pipeline.unit import Report, Unit
from densecli.pipeline.worker import UNITS_PER_WORKER, Pulse
from densecli.pipeline.worker_pool import WorkerPool
from densecli.shards.store import shard_name

PHOTOS, PHOTOS_OF_TAR = 256, 11_000  # of a shard, and of a tar of SA-1B


class Figures(NamedTuple):
    """What a run costs the main process: CPU in ms a shard, shards per second, and bytes of a unit."""

    workers: int
    shards: int
    cpu_ms: float
    rate: float
    unit_bytes: int


class Host:
    """A process in which many simulated workers live. They read the photos of their units, and no more."""

    def where(self) -> tuple[str, str]:
        return ray.get_runtime_context().get_node_id(), "host"

    def start(self) -> None:
        pass

    def build(self, pickled: bytes) -> bytes:
        unit: Unit = pickle.loads(pickled)
        samples = len(list(unit.items))
        return pickle.dumps(Report(shard=unit.shard, samples=samples, skipped={}, seconds={"teacher": 0.0}))

    def pulse(self) -> Pulse:
        return Pulse("", 0)

    def drop(self, shard: str) -> None:
        pass

    def stop(self) -> None:
        pass


class Launcher:
    """Deals workers to the processes."""

    cpus, gpus = 0, 0

    def __init__(self, processes: int) -> None:
        # The processes cannot import this file.
        cloudpickle: Any = ray.cloudpickle
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        actor: Any = ray.remote(Host).options(num_cpus=0, max_concurrency=8)
        self._hosts = [actor.remote() for _ in range(processes)]
        self._started = 0

    def start(self, left_out: Collection[str]) -> Any:
        self._started += 1
        return self._hosts[self._started % len(self._hosts)]

    def check(self) -> None:
        pass

    def end(self, worker: Any) -> None:
        pass

    def hosts(self) -> set[str]:
        return {"host"}


def listing(shards: int) -> Listing:
    """A listing of so many shards of photos, in tars named and filled as SA-1B's are."""

    def volume(number: int) -> Volume:
        first = number * PHOTOS_OF_TAR
        rows = [
            (b"sa_%d.jpg" % (first + i), i * 10**6, 800_000, i * 10**6 + 900_000, 50_000)
            for i in range(PHOTOS_OF_TAR)
        ]
        return Volume(f"sa_{number:06d}.tar", rows_of(rows), PassedOver())

    return Listing([volume(i) for i in range(-(-shards * PHOTOS // PHOTOS_OF_TAR))], shards * PHOTOS)


def measure(workers: int, shards: int, processes: int = 4) -> Figures:
    """Runs a build with simulated workers."""
    items = listing(shards)

    def unit(number: int) -> Unit:
        places = np.arange(number * PHOTOS, (number + 1) * PHOTOS)
        return Unit(shard=shard_name(number), items=part(items, places))

    settings = FailureSettings()
    with (
        TemporaryDirectory() as store,
        connected(None, 1),
        closing(Claims(store, ["column"], shards)) as claims,
        closing(Progress(shards * PHOTOS, "images", silence=float("inf"))) as progress,
    ):
        totals = Totals({shard_name(i): PHOTOS for i in range(shards)}, Stop(), progress)
        pool = WorkerPool(None, workers, settings=settings, launcher=Launcher(processes))  # type: ignore[arg-type]
        missing = set(range(shards))
        numbers = shared(claims, range(shards), missing.copy, slots=workers * UNITS_PER_WORKER)
        units = (None if number is None else unit(number) for number in numbers)

        def stopping() -> bool:
            claims.beat()
            return False

        cpu = start = done = 0.0
        for report in run_units(units, pool, settings, stopping):
            if not start:
                cpu, start = time.process_time(), time.perf_counter()
            totals.add(report)
            missing.discard(int(report.shard))
            done += 1
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
        assert totals.summary()["shards"] == shards
        size = len(pickle.dumps(unit(0)))
    return Figures(workers, shards, 1000 * cpu / done, done / seconds, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--shards", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=4, help="processes in which the workers live")
    options = parser.parse_args()
    found = [measure(workers, options.shards, options.processes) for workers in options.workers]
    heads = ["workers", "shards", "CPU, ms a shard", "shards/s", "bytes a unit"]
    rows = [
        [f"{f.workers}", f"{f.shards}", f"{f.cpu_ms:.2f}", f"{f.rate:.0f}", f"{f.unit_bytes:,}"]
        for f in found
    ]
    print(f"{platform.machine()}, Ray {ray.__version__}\n")
    print(table([heads, *rows]))


if __name__ == "__main__":
    main()
