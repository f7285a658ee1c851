"""The description of a vision foundation model's network, without weights. Importing this loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from densecli.models.published import Published

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class VFMArchitecture:
    """A vision foundation model's network without weights.

    Attributes:
        name: Its name in the specs of columns and in model cards.
        timm: The model's name in timm.
        patch: Side of a patch in pixels.
        options: Other arguments of `timm.create_model`.
        weights: Path of a weights file that ships with the package that registered the network.
        published: Where its weights are published, for those who have no file of them.
        mean: Channel means of pixels in 0..1.
        std: Channel standard deviations of pixels in 0..1.
        canvas: Side in pixels of the canvas that it is measured on where nothing else is said.
    """

    name: str
    timm: str
    patch: int
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    published: Published | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    canvas: int = 448

    def input_side(self, canvas: int, student_patch: int) -> int:
        """Input side in pixels that gives the student's token grid: 448 for patches 14 and 16 on 512."""
        return max(1, round(canvas / student_patch)) * self.patch
