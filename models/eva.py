"""Dense EVA-02 CLIP over timm's Eva trunk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from timm.layers.norm import LayerNorm
from timm.layers.pos_embed_sincos import apply_rot_embed_cat, build_rotary_pos_embed
from timm.models.eva import Eva
from torch import Tensor, nn

from densecli.models.dense import Grid, resize_positions
from densecli.models.transformer import READS, DenseTransformer

if TYPE_CHECKING:
    from densecli.models.architecture import Architecture


class DenseEva(DenseTransformer):
    """Reads an open_clip model whose image tower has a timm Eva as its `trunk` (separate q, k, v; SwiGLU)."""

    def __init__(self, clip: Any, arch: Architecture) -> None:
        super().__init__(clip, arch, patch_size=clip.visual.trunk.patch_embed.patch_size[0])

    @property
    def width(self) -> int:
        found: int = self.clip.visual.trunk.embed_dim
        return found

    def _embed(self, images: Tensor) -> tuple[Tensor, Grid]:
        trunk = self.clip.visual.trunk
        patches = trunk.patch_embed.proj(images)
        grid = (patches.shape[2], patches.shape[3])
        cls = trunk.cls_token.to(patches.dtype).expand(images.shape[0], -1, -1)
        x = torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)
        return x + resize_positions(trunk.pos_embed[0], grid).to(x.dtype), grid

    def blocks(self) -> nn.ModuleList:
        found: nn.ModuleList = self.clip.visual.trunk.blocks
        return found

    def _run(self, block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
        found: Tensor = block(x, rope=rope)
        return found

    def rope(self, grid: Grid) -> Tensor:
        """(h*w, 2d) sines and cosines of a grid, whose coordinates are stretched to the pre-training grid.

        `trunk.rope` cannot be used: it keeps the table of one input size.
        """
        trunk = self.clip.visual.trunk
        sin_cos = build_rotary_pos_embed(
            feat_shape=list(grid),
            dim=trunk.embed_dim // trunk.blocks[0].attn.num_heads,
            in_pixels=False,
            ref_feat_shape=trunk.rope.ref_feat_shape,
            device=trunk.pos_embed.device,
        )
        return torch.cat(sin_cos, dim=-1)

    def _rotate(self, x: Tensor, rope: Tensor) -> Tensor:
        return torch.cat([x[:, :, :1], apply_rot_embed_cat(x[:, :, 1:], rope).to(x.dtype)], dim=2)

    def _value_path(self, block: Any, x: Tensor) -> Tensor:
        x = x + self._merge(block, block.attn.v_proj(block.norm1(x)))
        found: Tensor = x + block.mlp(block.norm2(x))
        return found

    def _qkv(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, attn = block.norm1(x), block.attn
        q, k, v = (
            projection(x).unflatten(2, (attn.num_heads, -1)).transpose(1, 2)
            for projection in (attn.q_proj, attn.k_proj, attn.v_proj)
        )
        return q, k, v

    def _merge(self, block: Any, x: Tensor) -> Tensor:
        found: Tensor = block.attn.proj(block.attn.norm(x))
        return found

    def _head(self, x: Tensor) -> Tensor:
        found: Tensor = self.clip.visual.trunk.head(self.clip.visual.trunk.norm(x))
        return found

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        trunk = "clip.visual.trunk"
        frozen = [f"{trunk}.{part}" for part in ("patch_embed", "cls_token", "pos_embed", "norm", "head")]
        if mode == "vanilla":
            return frozen
        last = f"{trunk}.blocks.{len(self.blocks()) - 1}"
        unread = [f"{last}.attn.{name}_proj" for name in ("q", "k") if name not in READS.get(mode, ())]
        return frozen + unread + ([f"{last}.norm2", f"{last}.mlp"] if mode in READS else [])


class NarrowLayerNorm(LayerNorm):
    """A layer norm that hands on what it computes in float32 in the precision that linear layers read.

    Autocast would turn it into 16 bits once for each of q, k and v, and of the two inputs of SwiGLU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same, in autocast's type within autocast."""
        out: Tensor = super().forward(x)
        device = x.device.type
        return out.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else out


def build_eva_clip(config: Mapping[str, Any]) -> open_clip.CustomTextCLIP:
    """Builds an open_clip model from a configuration with EVA-CLIP's keys (`pt_hw_seq_len`, `subln`, ...)."""
    vision = config["vision_cfg"]
    text = {k: v for k, v in config["text_cfg"].items() if k not in ("xattn", "fusedLN")}
    # open_clip takes timm models by name only: build with a tiny tower, then replace it by the trunk.
    clip = open_clip.CustomTextCLIP(config["embed_dim"], {"layers": 1, "width": 64, "patch_size": 224}, text)
    trunk = Eva(
        img_size=vision["image_size"],
        patch_size=vision["patch_size"],
        embed_dim=vision["width"],
        depth=vision["layers"],
        num_heads=vision["width"] // vision["head_width"],
        mlp_ratio=vision["mlp_ratio"],
        num_classes=config["embed_dim"],
        global_pool="token",
        qkv_fused=False,
        swiglu_mlp=vision["naiveswiglu"],
        scale_mlp=vision["subln"],
        scale_attn_inner=vision["subln"],
        use_rot_pos_emb=vision["rope"],
        ref_feat_shape=(vision["pt_hw_seq_len"],) * 2,
        norm_layer=NarrowLayerNorm,
    )
    clip.visual = nn.Sequential(OrderedDict(trunk=trunk))
    return clip
