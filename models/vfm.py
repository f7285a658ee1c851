"""Vision foundation models over timm: unit patch tokens, whose cosines are a target (DeCLIP)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import checkpoint_seq
from torch import Tensor, nn

from densecli.models.checkpoints import load_strictly, random_seed, read_state_dict, seeded
from densecli.models.dense import resample_canvas, resize_grid
from densecli.models.vfms import VFMArchitecture, find_vfm


class VFM(nn.Module):
    """A timm network read out per patch; `forward` gives its unit tokens."""

    _mean: Tensor
    _std: Tensor

    def __init__(self, arch: VFMArchitecture) -> None:
        super().__init__()
        self.arch = arch
        # timm.create_model is typed as a plain module.
        self.net: Any = timm.create_model(arch.timm, num_classes=0, **arch.options)
        self._read = self._sam_tokens if arch.name == "sam-b" else self._vit_tokens
        self.register_buffer("_mean", torch.tensor(arch.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("_std", torch.tensor(arch.std).view(3, 1, 1) * 255, persistent=False)

    def prepare(self, canvases: Tensor, student_patch: int, *, side: int | None = None) -> Tensor:
        """(B, 3, S, S) canvases, pixels in 0..255 -> float32 input on which the grid is the student's.

        side: of the canvas as that student sees it, where it is not S.
        """
        side = self.arch.input_side(side or canvases.shape[-1], student_patch)
        return (resample_canvas(canvases, side) - self._mean) / self._std

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels, sides multiples of the patch -> (B, C, h, w), unit norm per token.

        A ViT's tokens are those after its final norm, SAM's those after the neck of its image encoder.
        Positions are resized bicubic without antialiasing, to any grid.
        """
        return F.normalize(self._read(images), dim=1)

    def _vit_tokens(self, images: Tensor) -> Tensor:
        net = self.net
        patches = net.patch_embed.proj(images)
        grid = (patches.shape[2], patches.shape[3])
        x = patches.flatten(2).transpose(1, 2)
        prefix = net.cls_token
        # With registers, timm has no position for CLS: it was added to CLS itself.
        own = 0 if net.no_embed_class else 1
        x = x + resize_grid(net.pos_embed[0, own:], grid)
        if own:
            prefix = prefix + net.pos_embed[:, :1]
        if net.reg_token is not None:
            prefix = torch.cat([prefix, net.reg_token], dim=1)
        x = torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
        x = net.norm(self._blocks(net.norm_pre(x)))
        return x[:, prefix.shape[1] :].transpose(1, 2).unflatten(2, grid)

    def _blocks(self, x: Tensor) -> Tensor:
        net = self.net
        return checkpoint_seq(net.blocks, x) if net.grad_checkpointing else net.blocks(x)

    def _sam_tokens(self, images: Tensor) -> Tensor:
        net = self.net
        x = net.patch_embed.proj(images).permute(0, 2, 3, 1)
        grid = (x.shape[1], x.shape[2])
        x = x + resize_grid(net.pos_embed[0].flatten(0, 1), grid).unflatten(0, grid)
        return net.neck(self._blocks(x).permute(0, 3, 1, 2))


def build_vfm(arch: VFMArchitecture) -> VFM:
    """Builds a network with random weights from torch's current generator, in eval mode."""
    return VFM(arch).eval()


def load_vfm(name: str, weights: str, device: str | torch.device = "cpu") -> VFM:
    """A VFM by name, in eval mode, with `random:SEED` or a file in timm's layout or its publisher's.

    Raises DenseCLIError for an unknown name and for a file that does not fit, with the keys.
    """
    arch, seed = find_vfm(name), random_seed(weights)
    model = seeded(lambda: build_vfm(arch), seed or 0)
    if seed is None:
        state = _timm_layout(read_state_dict(Path(weights)))
        load_strictly(model.net, state, name=name, source=weights)
    return model.to(device)


def _timm_layout(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict as timm has it, from that of facebookresearch's dinov2 or segment-anything."""
    sam = "image_encoder."
    if any(key.startswith(sam) for key in state):
        # The prompt encoder and the mask decoder are not what is asked for here.
        encoder = {key.removeprefix(sam): value for key, value in state.items() if key.startswith(sam)}
        return {key.replace("mlp.lin", "mlp.fc"): value for key, value in encoder.items()}
    # DINOv2's pre-training alone masks.
    state = {key: value for key, value in state.items() if key != "mask_token"}
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return state
