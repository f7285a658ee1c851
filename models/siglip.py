"""Dense SigLIP and SigLIP 2, whose image embedding is pooled by attention instead of a [CLS] token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from densecli.models.attention import timm_qkv
from densecli.models.dense import Grid, resize_grid
from densecli.models.transformer import READS, DenseTransformer

if TYPE_CHECKING:
    from densecli.models.architecture import Architecture


class DenseSigLIP(DenseTransformer):
    """Reads an open_clip model whose image tower is a timm ViT with attention pooling and no [CLS] token.

    The pool attends from one learned query to the tokens after the final norm. The embedding of a token is
    what the pool would return if it attended to that token alone: value projection, output projection and
    residual MLP. So tokens lie in the space of the text embeddings, just as MaskCLIP (Zhou et al., ECCV 2022)
    reads CLIP's ResNets. For a map of one token, this is the image embedding.
    """

    prefix = 0

    def __init__(self, clip: Any, arch: Architecture) -> None:
        super().__init__(clip, arch, patch_size=clip.visual.trunk.patch_embed.patch_size[0])

    @property
    def width(self) -> int:
        """See `DenseTransformer.width`."""
        return int(self.clip.visual.trunk.embed_dim)

    def _pool(self, x: Tensor) -> Tensor:
        trunk = self.clip.visual.trunk
        pooled: Tensor = trunk.attn_pool(trunk.norm(x))
        return pooled

    def blocks(self) -> nn.ModuleList:
        """See `DenseTransformer.blocks`."""
        blocks: nn.ModuleList = self.clip.visual.trunk.blocks
        return blocks

    def _embed(self, images: Tensor) -> tuple[Tensor, Grid]:
        trunk = self.clip.visual.trunk
        patches = trunk.patch_embed.proj(images)
        grid = (patches.shape[2], patches.shape[3])
        positions = resize_grid(trunk.pos_embed[0], grid)
        return trunk.norm_pre(patches.flatten(2).transpose(1, 2) + positions.to(patches.dtype)), grid

    def _run(self, block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
        out: Tensor = block(x)
        return out

    def _value_path(self, block: Any, x: Tensor) -> Tensor:
        value = F.linear(block.norm1(x), *_last(block.attn.qkv, 3))
        x = x + block.ls1(self._merge(block, value))
        out: Tensor = x + block.ls2(block.mlp(block.norm2(x)))
        return out

    def _qkv(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return timm_qkv(block, x)

    def _merge(self, block: Any, x: Tensor) -> Tensor:
        merged: Tensor = block.attn.proj(block.attn.norm(x))
        return merged

    def _head(self, x: Tensor) -> Tensor:
        trunk, pool = self.clip.visual.trunk, self.clip.visual.trunk.attn_pool
        x = pool.proj(F.linear(trunk.norm(x), *_last(pool.kv, 2)))
        out: Tensor = x + pool.mlp(pool.norm(x))
        return out

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        trunk = "clip.visual.trunk"
        frozen = [f"{trunk}.{part}" for part in ("patch_embed", "pos_embed", "norm", "attn_pool")]
        last = f"{trunk}.blocks.{len(self.blocks()) - 1}"
        # q, k and v are one parameter here: parts that a mode does not read get a zero gradient.
        return frozen + ([f"{last}.norm2", f"{last}.mlp"] if mode in READS else [])


def _last(linear: nn.Linear, parts: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the last of several projections that are stacked in one layer."""
    start = linear.out_features // parts * (parts - 1)
    return linear.weight[start:], linear.bias[start:]
