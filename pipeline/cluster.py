"""Ray for the workers: a local one for the duration of a build, or a running cluster."""

import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import ray
import torch
from ray._private import ray_constants
from ray.util.client import ray as client

from densecli.core.errors import DenseCLIError
from densecli.pipeline.limits import check_limits, check_room

OBJECT_STORE_BYTES = 80 * 2**20
"""Memory of Ray's object store, which only carries units and reports. Ray's minimum is 75 MiB."""

LOOPBACK = "127.0.0.1"
"""Where a local Ray listens."""
MISSED = 3
"""The head node is gone when it has not answered this many times in a row."""
MISS_SECONDS = 5.0
"""Seconds between two of these times."""
LONGEST_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")
"""Longest path in bytes of the folder that Ray keeps its sockets below."""


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Connects to Ray for as long as the block lasts.

    A local Ray has no dashboard and listens on the loopback interface alone. Its sockets and logs are in a
    folder of this user alone, which is gone at the end, or in $RAY_TMPDIR.

    Args:
        address: Address of a running cluster: auto, HOST:PORT or ray://HOST:PORT. None starts a local Ray.
        workers: Number of workers that a local Ray can run.

    Raises:
        DenseCLIError: The cluster cannot be reached, or Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # If it does not start, one sentence says so, not Ray's log above it.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        check_limits(workers)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="densecli-", ignore_cleanup_errors=True))
            empty = os.path.join(folder, "empty")
            os.mkdir(empty)
        except OSError as error:
            raise DenseCLIError(
                f"There is no temporary folder that can be written to: {error.strerror}.",
                hint="Set TMPDIR to a folder with room, such as /tmp.",
            ) from error
        if address is None:
            check_room(os.environ.get("RAY_TMPDIR") or folder)
            options |= {"num_cpus": workers, "object_store_memory": OBJECT_STORE_BYTES}
            options |= {"include_dashboard": False, "_node_ip_address": LOOPBACK, **_private_folder(folder)}
            stack.enter_context(_on_loopback())
        try:
            with _working_folder(empty):
                if address is None:
                    _start(**options)
                else:
                    check_reachable(address)
                    ray.init(address=address, **options)
        except Exception as error:  # Ray's own exceptions have no common base.
            raise _no_ray(address, error) from error
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


Connect = Callable[[str | None, int], AbstractContextManager[None]]
"""`connected`, or something that stands in for it."""


@contextmanager
def connected_once() -> Iterator[Connect]:
    """Yields a `connected` whose Ray stays, from its first block to the end of this one.

    Several builds, one after another, then share a Ray, where a local one takes seconds to start. Threads may
    share it too.
    """
    with ExitStack() as held:
        to: tuple[str | None, int] | None = None
        lock = Lock()

        @contextmanager
        def connect(address: str | None, workers: int) -> Iterator[None]:
            nonlocal to
            # A cluster has the size that it has.
            wanted = address, workers if address is None else 0
            with lock:
                if to != wanted or not ray.is_initialized():
                    to = None
                    held.close()
                    held.enter_context(connected(address, workers))
                    to = wanted
            yield

        yield connect


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Lets a Ray that starts in the block listen on the loopback interface alone.

    Ray replaces 127.0.0.1 by the machine's address in the network, except where it knows no clusters, as on
    macOS. Its processes read that from the environment, this one has read it.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    variable = os.environ.get(name)
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[name] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[name]
        if variable is not None:
            os.environ[name] = variable


def _private_folder(folder: str) -> dict[str, str]:
    """Ray's option for the folder of its sockets and logs; none where the user has named one.

    Raises:
        DenseCLIError: The path is too long for sockets.
    """
    named = os.environ.get("RAY_TMPDIR")
    # Ray opens the folder itself to everybody: it lies within the private one.
    path = os.path.join(named or folder, "ray")
    if len(os.fsencode(path)) > LONGEST_FOLDER:
        raise DenseCLIError(
            f"The temporary folder {named or os.path.dirname(folder)} has too long a path for Ray's sockets.",
            hint="Set RAY_TMPDIR to a folder with a short path, such as /tmp.",
        )
    return {} if named else {"_temp_dir": path}


@contextmanager
def _working_folder(folder: str) -> Iterator[None]:
    """Makes `folder` the working folder while Ray starts.

    Ray puts the user's working folder first on every worker's search path, where the user's own `models`,
    `train.py` or `yaml.py` would hide installed modules. An empty folder of this user alone hides nothing.
    """
    before, search_path = os.getcwd(), os.environ.get("PYTHONPATH")
    if search_path:
        # Ray's processes inherit it, and would read relative entries from the new working folder.
        absolute = [os.path.abspath(entry) for entry in search_path.split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(absolute)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        if search_path:
            os.environ["PYTHONPATH"] = search_path


def _start(**options: Any) -> None:
    """Starts a local Ray. Tries twice, because Ray gives its processes only 30 seconds to start."""
    try:
        ray.init(address="local", **options)
    except Exception as error:
        ray.shutdown()
        if isinstance(error, OSError):
            # Ray keeps the token by which its processes know each other in the home folder: it may be full.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init(address="local", **options)


def check_reachable(address: str) -> None:
    """Raises OSError if nothing listens at the address. Ray itself would try for a minute or more."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def check_head() -> None:
    """Checks that the cluster's head node answers; waits a while for one that does not.

    Without one Ray's calls would block, and Ray would end this process a minute later. So this comes before
    each of them.

    Raises:
        DenseCLIError: It has not, several times in a row.
    """
    if client.is_connected():  # type: ignore[no-untyped-call]
        # A server stands in between, and the head node may have no address that is known here.
        return
    address = ray.get_runtime_context().gcs_address
    for missed in range(1, MISSED + 1):
        try:
            check_reachable(address)
            return
        except OSError as error:
            if missed == MISSED:
                raise DenseCLIError(
                    f"The head node of the Ray cluster, {address}, does not answer any more.",
                    hint="Finished shards are kept: the same command goes on, on another cluster too.",
                ) from error
        time.sleep(MISS_SECONDS)


def _no_ray(address: str | None, error: Exception) -> DenseCLIError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if address is None:
        return DenseCLIError(
            f"Ray could not start on this machine: {lines[0]}",
            hint="Check the machine's load and free memory, then run the same command again: it continues.",
        )
    return DenseCLIError(
        f"Cannot connect to the Ray cluster {address}: {lines[0]}",
        hint="Start it with ray start --head, with the same Python, Ray and densecli on every node.",
    )


def gpus_of_worker(workers: int, gpus: int) -> float:
    """Returns the GPUs of each worker so that all can run at once: 1, or 1/n if n workers share a GPU."""
    # Ray counts in units of 1/10,000. A share that is rounded up would leave no room for the last worker.
    return math.floor(10_000 / math.ceil(workers / gpus)) / 10_000 if gpus else 0


def gpus_at(address: str | None, device: str) -> int:
    """Returns how many GPUs workers on a device can have.

    Args:
        address: Address of a running cluster; None for this machine.
        device: A torch device, or auto for a cluster.

    Raises:
        DenseCLIError: The cluster cannot be reached.
    """
    if device == "cpu":
        return 0
    if address is None:
        return torch.cuda.device_count()
    with nullcontext() if ray.is_initialized() else connected(address, workers=1):
        return total_gpus()


def workers_on(gpus: int, gpus_per_worker: float | None) -> int:
    """Returns how many workers use all GPUs: one each, or as many as share it or need several; 1 without."""
    share = gpus_per_worker or 1.0
    # A share of 1 / 3 may be written as 0.3333, but no worker can have parts of two GPUs.
    found = gpus * math.floor(1 / share) if share < 1 else gpus // math.ceil(share)
    return max(1, found)


def nodes() -> list[dict[str, Any]]:
    """Ray's facts about the nodes that are alive."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in found if node["Alive"]]


def total_gpus() -> int:
    """Number of GPUs of all nodes together."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("GPU", 0))
