"""Vision foundation models of timm: unit patch tokens, whose cosines are a target (DeCLIP)."""

from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import checkpoint_seq
from timm.models.eva import Eva
from timm.models.hieradet_sam2 import HieraDet
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.dense import Grid, resample_canvas, resize_grid
from densecli.models.vfm_architecture import VFMArchitecture

# The stage of SAM 2's Hiera at stride 16, its deepest, and that stride.
HIERA_STAGE, HIERA_STRIDE = 2, 16


class VFM(nn.Module):
    """A timm network that is read out per patch; `forward` returns its unit tokens."""

    _mean: Tensor
    _std: Tensor

    def __init__(self, arch: VFMArchitecture) -> None:
        super().__init__()
        self.arch = arch
        # timm.create_model is typed as a plain module.
        self.net: Any = timm.create_model(arch.timm, num_classes=0, **arch.options)
        self._read = self._reader()
        self.register_buffer("_mean", torch.tensor(arch.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("_std", torch.tensor(arch.std).view(3, 1, 1) * 255, persistent=False)

    def prepare(self, canvases: Tensor, student_patch: int, *, side: int | None = None) -> Tensor:
        """Resizes canvases so that the token grid is the student's, and normalises them.

        Args:
            canvases: (B, 3, S, S) pixels in 0..255.
            student_patch: Patch of the student in pixels.
            side: Side in pixels of the canvas as the student sees it, by default S.

        Returns:
            Normalised float32 input of `forward`.
        """
        side = self.arch.input_side(side or canvases.shape[-1], student_patch)
        return self.normalize(resample_canvas(canvases, side))

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) pixels in 0..255 -> float32 input of `forward`."""
        return (images.float() - self._mean) / self._std

    def forward(self, images: Tensor) -> Tensor:
        """Computes the patch tokens, after the network's final norm.

        Segment Anything gives the map after its neck, SAM 2's Hiera that of its third stage, before the neck.
        Learned positions of a ViT are resized to the grid, bicubic without antialiasing; rotary positions
        need no resizing.

        Args:
            images: (B, 3, H, W) normalised pixels, H and W multiples of the patch.

        Returns:
            (B, C, h, w), of unit norm per token.
        """
        return F.normalize(self._read(images).float(), dim=1)

    def unread(self) -> tuple[str, ...]:
        """Prefixes of the names of parameters of `net` that `forward` does not read."""
        unread = ("head.", "fc_norm.", "attn_pool.")
        if isinstance(self.net, HieraDet):
            first, count = self.net.stage_ends[HIERA_STAGE] + 1, len(self.net.blocks)
            return (*unread, *(f"blocks.{i}." for i in range(first, count)))
        return unread

    def _reader(self) -> Callable[[Tensor], Tensor]:
        net = self.net
        if type(net) is VisionTransformer and net.pos_embed is not None:
            return self._vit_tokens
        if isinstance(net, VisionTransformer | Eva):
            return self._timm_tokens
        if isinstance(net, VisionTransformerSAM):
            return self._sam_tokens
        if isinstance(net, HieraDet):
            return self._hiera_tokens
        hint = "Name a ViT of timm, such as timm/vit_base_patch14_dinov2.lvd142m, or a DINOv3, SAM, SAM 2 or "
        hint += "RADIO encoder, such as timm/vit_base_patch16_radio_v3."
        # timm has some networks as both.
        plain = self.arch.timm.replace("naflexvit", "vit")
        if plain != self.arch.timm and timm.is_model(plain):
            hint = f"Name the same network as a plain ViT: timm/{plain}."
        raise DenseCLIError(
            f"{self.arch.name} is a {type(net).__name__}, which has no patch grid that can be read.",
            hint=hint,
        )

    @property
    def has_cls(self) -> bool:
        """Whether it is a plain ViT with a [CLS] token and learned positions."""
        return self._read == self._vit_tokens and self.net.cls_token is not None

    def _vit_tokens(self, images: Tensor) -> Tensor:
        """Like timm's `forward_features`, but never antialiases positions."""
        x, grid = self.embed(images)
        return to_map(self.net.norm(self._blocks(x))[:, self.net.num_prefix_tokens :], grid)

    def embed(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Computes what enters the blocks of a plain ViT.

        Args:
            images: See `forward`.

        Returns:
            (B, prefix + h * w, C), [CLS] and registers first; h and w.
        """
        net = self.net
        patches = net.patch_embed.norm(net.patch_embed.proj(images).permute(0, 2, 3, 1))
        grid = (patches.shape[1], patches.shape[2])
        prefix = [token for token in (net.cls_token, net.reg_token) if token is not None]
        # With registers, timm has no position for [CLS]: it is part of the token itself.
        own = 0 if net.no_embed_class else net.num_prefix_tokens
        x = patches.flatten(1, 2) + resize_grid(net.pos_embed[0, own:], grid)
        if prefix:
            before = torch.cat(prefix, dim=1)
            before = before + net.pos_embed[:, :own] if own else before
            x = torch.cat([before.expand(x.shape[0], -1, -1), x], dim=1)
        return net.norm_pre(x), grid

    def _timm_tokens(self, images: Tensor) -> Tensor:
        net = self.net
        grid = (images.shape[2] // self.arch.patch, images.shape[3] // self.arch.patch)
        return to_map(net.forward_features(images)[:, net.num_prefix_tokens :], grid)

    def _blocks(self, x: Tensor) -> Tensor:
        net = self.net
        found: Tensor = checkpoint_seq(net.blocks, x) if net.grad_checkpointing else net.blocks(x)
        return found

    def _sam_tokens(self, images: Tensor) -> Tensor:
        net = self.net
        x = net.patch_embed.proj(images).permute(0, 2, 3, 1)
        grid = (x.shape[1], x.shape[2])
        x = x + resize_grid(net.pos_embed[0].flatten(0, 1), grid).unflatten(0, grid)
        found: Tensor = net.neck(self._blocks(x).permute(0, 3, 1, 2))
        return found

    def _hiera_tokens(self, images: Tensor) -> Tensor:
        net = self.net
        window = net.pos_embed_window.shape[-1] * net.patch_embed.proj.stride[0]
        if images.shape[2] % window or images.shape[3] % window:
            raise DenseCLIError(
                f"{self.arch.name} reads sides that are multiples of {window} pixels, not"
                f" {images.shape[3]} x {images.shape[2]}.",
                hint=f"Choose a --canvas that is a multiple of {2 * HIERA_STRIDE} for a student of patch 16.",
            )
        (tokens,) = net.forward_intermediates(images, indices=[HIERA_STAGE], intermediates_only=True)
        found: Tensor = tokens
        return found


def build_vfm(arch: VFMArchitecture) -> VFM:
    """Builds a network with random weights from torch's current generator, in eval mode."""
    return VFM(arch).eval()


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, h*w, C) -> (B, C, h, w)."""
    found: Tensor = tokens.transpose(1, 2).unflatten(2, grid)
    return found
