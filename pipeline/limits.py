"""Limits of the system that a local Ray would meet in processes that end without a word."""

import os
import resource
import shutil
from threading import Event, Thread

from densecli.core.errors import DenseCLIError

ADDRESS_SPACE = 8 * 2**30
"""Bytes that a process needs. One with torch and Ray reserves 4.6 GB before it has done anything."""
ROOM = 20_000_000
"""Bytes that a local Ray needs in its temporary folder."""
RAY_THREADS, WORKER_THREADS = 150, 50
"""Threads of Ray's own processes, and of each worker: about 160 and 25 on a machine of two cores."""


def check_limits(workers: int) -> None:
    """Checks that the system allows what Ray needs.

    Args:
        workers: Number of workers.

    Raises:
        DenseCLIError: A limit is too low.
    """
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space not in (-1, resource.RLIM_INFINITY) and space < ADDRESS_SPACE:
        raise DenseCLIError(
            f"A process may have {space / 2**30:.1f} GB of address space here, and Ray's need "
            f"{ADDRESS_SPACE / 2**30:.0f} GB.",
            hint="Raise the limit: ulimit -v unlimited.",
        )
    wanted = RAY_THREADS + WORKER_THREADS * workers
    if (allowed := _startable(wanted)) < wanted:
        raise DenseCLIError(
            f"Only {allowed} more threads may be started here, and Ray needs about {wanted} with --workers "
            f"{workers}.",
            hint="Raise the limit of processes (ulimit -u, or the container's limit), or lower --workers.",
        )


def check_room(folder: str) -> None:
    """Checks that Ray's logs and sockets have room. Raises DenseCLIError."""
    if os.path.isdir(folder) and (free := shutil.disk_usage(folder).free) < ROOM:
        needed = ROOM // 10**6
        raise DenseCLIError(
            f"The temporary folder {folder} has room for {free / 1e6:.1f} MB, and Ray needs {needed}.",
            hint="Make room, or set TMPDIR (and RAY_TMPDIR, if it is set) to a folder with more.",
        )


def _startable(count: int) -> int:
    """How many of so many threads can be started: no number says so for all kinds of limits."""
    release = Event()
    threads = [Thread(target=release.wait, daemon=True) for _ in range(count)]
    started = 0
    try:
        for thread in threads:
            thread.start()
            started += 1
    except RuntimeError:
        pass
    finally:
        release.set()
        for thread in threads[:started]:
            thread.join()
    return started
