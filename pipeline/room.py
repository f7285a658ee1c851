"""Room on a device: batches that do not fit into its memory are halved, and stay so."""

from collections.abc import Callable
from typing import TypeVar

import torch

from densecli.core.device import lacks_memory

R = TypeVar("R")


class NoRoom(RuntimeError):
    """Not even one input fits into the device's memory. No DenseCLIError: another attempt may find room."""


class Room:
    """The largest batches that a teacher's device has room for, by stage of the work.

    It belongs to the teacher, not to a shard: a size that did not fit is not tried again.
    """

    def __init__(self, teacher: str, device: torch.device) -> None:
        """Starts without limits.

        Args:
            teacher: Name of the teacher, for the error.
            device: Its device.
        """
        self._teacher = teacher
        self._device = device
        self._limits: dict[str, int] = {}

    def run(self, stage: str, count: int, work: Callable[[int, int], R]) -> list[R]:
        """Calls `work(start, stop)` on consecutive parts of `count` things, as large as fit.

        Returns:
            The results of the parts, in order.

        Raises:
            NoRoom: One thing alone does not fit.
            RuntimeError: Whatever else `work` raised.
        """
        results: list[R] = []
        start = 0
        while start < count:
            stop = min(count, start + self._limits.get(stage, count))
            try:
                results.append(work(start, stop))
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
                if stop - start == 1:
                    raise NoRoom(
                        f"{self._device} has no memory left for one input of the teacher {self._teacher}: "
                        "give each worker a whole GPU (--gpus-per-worker 1), name fewer teachers at once or "
                        "choose a smaller canvas"
                    ) from error
                self._limits[stage] = (stop - start) // 2
            else:
                start = stop
                continue
            # Only here is the error gone, and with it the frames that hold the tensors of the attempt.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        return results
