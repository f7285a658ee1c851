"""Vision foundation models over timm: unit patch tokens, whose cosines are a target (DeCLIP)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import checkpoint_seq
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_strictly, random_seed, read_state_dict, seeded
from densecli.models.dense import resample_canvas, resize_grid
from densecli.scenes.vocabulary import VFM_CONFIG

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# segment_anything's own pixel_mean and pixel_std, over 255.
SAM = ((123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255))


@dataclass(frozen=True, kw_only=True)
class VFMArchitecture:
    """A network without weights. timm: its name there; options: what differs from that. patch: pixels. mean,
    std: of pixels in 0..1."""

    name: str
    timm: str
    patch: int
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    def build(self) -> "VFM":
        """The network with random weights from torch's current generator, in eval mode."""
        return VFM(self).eval()

    def input_side(self, canvas: int, student_patch: int) -> int:
        """Pixels of the side whose token grid is the student's on this canvas: 448 for patch 14 on 512."""
        return max(1, round(canvas / student_patch)) * self.patch


def _dinov2() -> list[VFMArchitecture]:
    sizes = {"vits14": "small", "vitb14": "base", "vitl14": "large"}
    return [
        VFMArchitecture(name=f"dinov2-{short}{ours}", timm=f"vit_{size}_patch14{theirs}_dinov2", patch=14)
        for ours, theirs in (("", ""), ("-reg", "_reg4"))
        for short, size in sizes.items()
    ]


_ARCHITECTURES = (
    *_dinov2(),
    VFMArchitecture(name="dino-vitb16", timm="vit_base_patch16_224", patch=16),
    VFMArchitecture(name="dino-vitb8", timm="vit_base_patch8_224", patch=8),
    VFMArchitecture(name="sam-b", timm="samvit_base_patch16", patch=16, mean=SAM[0], std=SAM[1]),
    VFMArchitecture(name="scenes-vfm", timm="vit_tiny_patch16_224", patch=12, options=VFM_CONFIG),
)
VFMS: dict[str, VFMArchitecture] = {arch.name: arch for arch in _ARCHITECTURES}


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


def load_vfm(name: str, weights: str, device: str | torch.device = "cpu") -> VFM:
    """A VFM by name, in eval mode, with `random:SEED` or a file in timm's layout or its publisher's.

    Raises DenseCLIError for an unknown name and for a file that does not fit, with the keys.
    """
    if name not in VFMS:
        raise DenseCLIError(
            f"There is no vision foundation model called {name!r}.", hint=f"Known: {', '.join(VFMS)}."
        )
    build: Callable[[], VFM] = VFMS[name].build
    seed = random_seed(weights)
    model = seeded(build, seed or 0)
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
