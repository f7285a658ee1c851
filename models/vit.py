"""Dense OpenAI and OpenCLIP vision transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecli.models.dense import Grid, resize_positions
from densecli.models.transformer import READS, DenseTransformer

if TYPE_CHECKING:
    from densecli.models.architecture import Architecture


class DenseViT(DenseTransformer):
    """Reads open_clip's VisionTransformer with [CLS] pooling and default blocks."""

    def __init__(self, clip: Any, arch: Architecture) -> None:
        super().__init__(clip, arch, patch_size=clip.visual.patch_size[0])

    @property
    def width(self) -> int:
        found: int = self.clip.visual.positional_embedding.shape[1]
        return found

    def _embed(self, images: Tensor) -> tuple[Tensor, Grid]:
        visual = self.clip.visual
        patches = visual.conv1(images)
        grid = (patches.shape[2], patches.shape[3])
        cls = visual.class_embedding.to(patches.dtype).expand(images.shape[0], 1, -1)
        x = torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)
        return visual.ln_pre(x + resize_positions(visual.positional_embedding, grid).to(x.dtype)), grid

    def blocks(self) -> nn.ModuleList:
        found: nn.ModuleList = self.clip.visual.transformer.resblocks
        return found

    def _run(self, block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
        found: Tensor = block(x)
        return found

    def _value_path(self, block: Any, x: Tensor) -> Tensor:
        width = x.shape[-1]
        weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
        x = x + block.ls_1(block.attn.out_proj(F.linear(block.ln_1(x), weight, bias)))
        found: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
        return found

    def _qkv(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = qkv.unflatten(2, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def _merge(self, block: Any, x: Tensor) -> Tensor:
        found: Tensor = block.attn.out_proj(x)
        return found

    def _head(self, x: Tensor) -> Tensor:
        found: Tensor = self.clip.visual.ln_post(x) @ self.clip.visual.proj
        return found

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        visual = "clip.visual"
        frozen = [
            f"{visual}.{part}"
            for part in ("conv1", "class_embedding", "positional_embedding", "ln_pre", "ln_post", "proj")
        ]
        last = f"{visual}.transformer.resblocks.{len(self.blocks()) - 1}"
        # q, k and v are one parameter here: what a mode does not read of it gets a zero gradient.
        return frozen + ([f"{last}.ln_2", f"{last}.mlp"] if mode in READS else [])
