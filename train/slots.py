"""Memory for the photos of a batch, used again for those of a later one."""

import weakref

import numpy as np
import torch
from torch import Tensor


class Slots:
    """Gives out uint8 tensors of one shape. What nobody holds any more is given out again.

    New memory for each batch would cost about as much as a copy of it: the system clears every page.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Starts without memory."""
        self._shape = shape
        self._free: list[np.ndarray] = []

    def take(self, *, pinned: bool = False) -> Tensor:
        """A tensor whose values are left over.

        Args:
            pinned: In pinned memory, which torch itself uses again, once copies from it to a GPU have ended.
        """
        if pinned:
            return torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)
        memory = self._free.pop() if self._free else np.empty(self._shape, np.uint8)
        held = memory[:]
        # The tensor's storage holds this view of the memory, and ends with the last tensor on it.
        weakref.finalize(held, self._free.append, memory).atexit = False
        return torch.from_numpy(held)
