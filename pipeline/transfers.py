"""Copies between host and device that nobody waits for until the result is needed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(rows: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Copies arrays of one shape and type to a device, as one batch.

    On a GPU they go through pinned memory, and the host does not wait. torch keeps the pinned memory until
    the copy is done, and uses it again for a later batch.

    Returns:
        (B, ...), for B arrays.
    """
    first = rows[0]
    dtype = torch.from_numpy(np.empty(0, first.dtype)).dtype
    host = torch.empty((len(rows), *first.shape), dtype=dtype, pin_memory=device.type == "cuda")
    np.stack(rows, out=host.numpy())
    return host.to(device, non_blocking=True)


class Arrival:
    """Tensors on their way from a device to the host."""

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        """Starts the copies.

        Args:
            tensors: Tensors on the device.
            device: The device.
        """
        # A copy that does not block goes to pinned memory.
        self._tensors = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        self._event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self._event:
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> list[np.ndarray]:
        """Waits for the copies. Returns the tensors as arrays."""
        if self._event:
            self._event.synchronize()
        return [tensor.numpy() for tensor in self._tensors]

    def seconds_since(self, start: torch.cuda.Event) -> float:
        """Seconds on the GPU from an event to the end of the copies, which have been waited for."""
        assert self._event
        milliseconds: float = start.elapsed_time(self._event)
        return milliseconds / 1000
