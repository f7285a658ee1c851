"""Dense OpenCLIP ConvNeXt over timm's trunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from densecli.models.dense import DenseCLIP

if TYPE_CHECKING:
    from densecli.models.architecture import Architecture


class DenseConvNeXt(DenseCLIP):
    """Reads open_clip's TimmModel with a ConvNeXt: head norm and projection at every location of the map."""

    def __init__(self, clip: Any, arch: Architecture) -> None:
        super().__init__(clip, arch, patch_size=32)

    def dense_and_context(self, images: Tensor, mode: str = "value") -> tuple[Tensor, dict[str, Tensor]]:
        """See `DenseCLIP.dense`; a convolutional tower has no context features."""
        self.check_mode(mode)
        trunk, head = self.clip.visual.trunk, self.clip.visual.head
        x = trunk.stem(images)
        for stage in trunk.stages:
            x = self._checkpointed(stage, x)
        x = trunk.head.norm(trunk.norm_pre(x))
        dense = head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return (F.normalize(dense.float(), dim=1) if mode == "value" else dense), {}

    def encode_image(self, images: Tensor) -> Tensor:
        """See `DenseCLIP.encode_image`."""
        found: Tensor = self.clip.visual(images)
        return found

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        return ["clip.visual.trunk.stem", "clip.visual.trunk.head", "clip.visual.head"]
