"""The Ray that the workers run on: one of our own on this machine, or a cluster that is there."""

import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from densecli.core.errors import DenseCLIError

# Units and reports pass through Ray and are small: the photos never do. Ray's own minimum is 75 MiB.
OBJECT_STORE_BYTES = 80 * 2**20


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Ray as long as the block lasts: the one at `address` (auto, HOST:PORT or ray://HOST:PORT), else a local
    one with room for `workers`, without dashboard and usage report.

    Raises DenseCLIError where there is no cluster at `address`, or none can be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            _start(num_cpus=workers, object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False, **quiet)
        else:
            _knock(address)
            ray.init(address=address, **quiet)
    except Exception as error:  # Ray's own are of no kind.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if address is None:
            raise DenseCLIError(
                f"Ray does not start on this machine: {lines[0]}",
                hint="Is it very busy, or short of memory? The same command goes on where it stopped.",
            ) from error
        raise DenseCLIError(
            f"There is no way to the Ray cluster {address}: {lines[0]}",
            hint="Start it with ray start --head, with the same Python, Ray and densecli on every node.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _start(**options: Any) -> None:
    try:
        ray.init(address="local", **options)
    except Exception:
        # Ray gives its processes 30 seconds; on a busy machine they are quicker with their files in memory.
        ray.shutdown()
        ray.init(address="local", **options)


def _knock(address: str) -> None:
    """Ray tries for minutes where nobody listens. Raises OSError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def gpus_of_worker(workers: int, gpus: int) -> float:
    """The share of a GPU that lets `workers` run at once on `gpus`: a whole one, or 1/n where n share one."""
    # Ray counts in ten-thousandths, and a share rounded up would leave the last worker without room.
    return math.floor(10_000 / math.ceil(workers / gpus)) / 10_000 if gpus else 0


def machines() -> int:
    """How many nodes there are."""
    return sum(node["Alive"] for node in ray.nodes())


def total_gpus() -> int:
    """What all nodes have together."""
    return int(ray.cluster_resources().get("GPU", 0))
