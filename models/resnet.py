"""Dense OpenAI ModifiedResNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecli.models.dense import DenseCLIP, resize_positions

if TYPE_CHECKING:
    from densecli.models.architecture import Architecture


class DenseResNet(DenseCLIP):
    """Reads open_clip's ModifiedResNet: positions, value and output projection of the attention pool at every
    location."""

    def __init__(self, clip: Any, arch: Architecture) -> None:
        super().__init__(clip, arch, patch_size=32)

    def train(self, mode: bool = True) -> DenseResNet:
        """Sets the mode, but keeps the checkpoint's batch statistics: padded canvases would spoil them."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def dense_and_context(self, images: Tensor, mode: str = "value") -> tuple[Tensor, dict[str, Tensor]]:
        """See `DenseCLIP.dense`; a convolutional tower has no context features."""
        self.check_mode(mode)
        pool, x = self.clip.visual.attnpool, self._trunk(images)
        positions = self._positions(x)[1:].unflatten(0, x.shape[2:])
        dense = pool.c_proj(pool.v_proj(x.permute(0, 2, 3, 1) + positions)).permute(0, 3, 1, 2)
        return (F.normalize(dense.float(), dim=1) if mode == "value" else dense), {}

    def encode_image(self, images: Tensor) -> Tensor:
        """See `DenseCLIP.encode_image`."""
        pool, x = self.clip.visual.attnpool, self._trunk(images)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self._positions(x)

        def heads(t: Tensor) -> Tensor:
            found: Tensor = t.unflatten(2, (pool.num_heads, -1)).transpose(1, 2)
            return found

        q, k, v = heads(pool.q_proj(tokens[:, :1])), heads(pool.k_proj(tokens)), heads(pool.v_proj(tokens))
        found: Tensor = pool.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))[:, 0]
        return found

    def _trunk(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H/32, W/32)."""
        visual = self.clip.visual
        x = visual.stem(images)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = self._checkpointed(layer, x)
        found: Tensor = x
        return found

    def _positions(self, x: Tensor) -> Tensor:
        """(1 + h*w, C) for a map of h, w."""
        grid = (x.shape[2], x.shape[3])
        return resize_positions(self.clip.visual.attnpool.positional_embedding, grid).to(x.dtype)

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        stem = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
        return [f"clip.visual.{part}" for part in (*stem, "attnpool")]
