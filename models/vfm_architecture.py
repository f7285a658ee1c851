"""What describes the network of a vision foundation model. Importing this loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class VFMArchitecture:
    """A vision foundation model's network without weights.

    Attributes:
        name: Its name in the specs of columns and in model cards.
        timm: The model's name in timm.
        patch: Pixels of input to a token, along a side.
        options: Arguments of `timm.create_model` beside the name.
        weights: Path of a weights file that ships with whoever registered the network.
        mean: Of pixels in 0..1, by channel.
        std: Of pixels in 0..1, by channel.
    """

    name: str
    timm: str
    patch: int
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def input_side(self, canvas: int, student_patch: int) -> int:
        """Side in pixels whose token grid is the student's on this canvas: 448 for patch 14 on 512."""
        return max(1, round(canvas / student_patch)) * self.patch
