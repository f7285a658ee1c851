"""What the pipeline asks of a teacher, whatever it says."""

from typing import Any, Protocol

import numpy as np
import torch

from shards.codecs import Arrays, Errors
from shards.regions import Regions


class Teacher(Protocol):
    """A frozen network on its device."""

    device: torch.device

    def live(self, canvases: np.ndarray, regions: list[Regions]) -> list[np.ndarray]:
        """What it says about (B, S, S, 3) uint8 canvases with their regions: a target per image."""
        ...

    def encode(self, target: np.ndarray) -> tuple[Arrays, Errors]:
        """The arrays that are stored for one image's target, and the codec's error on it."""
        ...


class TeacherConfig(Protocol):
    """A teacher that is not loaded yet: small, picklable, and enough to name its column."""

    @property
    def name(self) -> str:
        """The column's name."""
        ...

    def spec(self) -> dict[str, Any]:
        """All that a stored target depends on beside data, canvas and regions: it enters the key."""
        ...

    def info(self) -> dict[str, Any]:
        """What a reader may want to know and the key does not need."""
        ...

    def load(self, device: str) -> Teacher: ...
