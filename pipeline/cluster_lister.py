"""Lists tars elsewhere on a Ray cluster: a task for each tar."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from densecli.core.errors import DenseCLIError
from densecli.pipeline.cluster import Connect, check_head
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.sources.tars import Choose, Scanned, TarLister, scan_tar

CHECK_SECONDS = 15.0
"""Seconds without a result after which the head node is asked whether it is there."""


class ClusterLister(TarLister):
    """Lists tars by tasks of a cluster, which all nodes share. Its threads only wait.

    However many nodes there are, no more requests are under way than it takes for the 5,500 a second that S3
    answers for one prefix.
    """

    at_once, requests = 16, 256

    def __init__(self, connected: Callable[[], AbstractContextManager[None]]) -> None:
        """Connects to nothing yet.

        Args:
            connected: Connects to the cluster for as long as a block lasts.
        """
        self._connected = connected
        self._task: Any = None

    @contextmanager
    def around(self) -> Iterator[None]:
        """See `TarLister.around`."""
        with self._connected():
            # Workers have the CPUs, and a listing waits for answers most of the time.
            self._task = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(scan_tar)
            yield

    def scan(self, url: str, choose: Choose, *, size: int, readers: int) -> Scanned:
        """See `TarLister.scan`. A task whose node is lost runs again on another."""
        try:
            call = self._task.remote(url, choose, size=size, readers=readers)
            while not ray.wait([call], timeout=CHECK_SECONDS)[0]:
                check_head()
            found: Scanned = ray.get(call)
            return found
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise DenseCLIError(
                f"The cluster could not list {url}: {type(error).__name__}.",
                hint="The tars that were listed are kept: run the same command again.",
            ) from error


def lister_of(config: BuildConfig, connect: Connect) -> TarLister | None:
    """What lists tars elsewhere for a build: a cluster; else None, for threads of this process."""
    if config.ray_address is None or config.dry_run:
        return None
    return ClusterLister(lambda: connect(config.ray_address, 1))
