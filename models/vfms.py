"""Vision foundation models by name. Importing this loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from densecli.core.registry import Registry, registry, unknown_name

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# segment_anything's own pixel_mean and pixel_std, over 255.
SAM_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
SAM_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


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


VFMS: Registry[VFMArchitecture] = registry("vfms", noun="vision foundation model", of=VFMArchitecture)
"""Vision foundation models by name."""

for registers, tag in (("", ""), ("-reg", "_reg4")):
    for short, size in {"vits14": "small", "vitb14": "base", "vitl14": "large"}.items():
        VFMS.add(
            f"dinov2-{short}{registers}",
            VFMArchitecture(
                name=f"dinov2-{short}{registers}", timm=f"vit_{size}_patch14{tag}_dinov2", patch=14
            ),
            help=f"DINOv2 ViT-{short[3].upper()}/14{' with registers' if registers else ''}.",
            needs=f"weights/dinov2-{short}{registers}.*",
        )
for arch, help in (
    (VFMArchitecture(name="dino-vitb16", timm="vit_base_patch16_224", patch=16), "DINO ViT-B/16."),
    (VFMArchitecture(name="dino-vitb8", timm="vit_base_patch8_224", patch=8), "DINO ViT-B/8."),
    (
        VFMArchitecture(name="sam-b", timm="samvit_base_patch16", patch=16, mean=SAM_MEAN, std=SAM_STD),
        "Segment Anything's image encoder, ViT-B.",
    ),
    (
        VFMArchitecture(name="sam-l", timm="samvit_large_patch16", patch=16, mean=SAM_MEAN, std=SAM_STD),
        "Segment Anything's image encoder, ViT-L.",
    ),
):
    VFMS.add(arch.name, arch, help=help, needs=f"weights/{arch.name}.*")


TIMM = "timm/"
"""Before the name in timm of a ViT that no entry describes."""


def is_vfm(name: str) -> bool:
    """Whether a name stands for a vision foundation model."""
    return name.startswith(TIMM) or name in VFMS


def find_vfm(name: str) -> VFMArchitecture:
    """Finds the architecture of a vision foundation model.

    Args:
        name: A registered name, or timm/NAME with timm's name of a ViT, with or without the tag of its
            weights: timm/vit_base_patch14_reg4_dinov2.lvd142m.

    Raises:
        DenseCLIError: There is no such model, with the nearest names, or it has no patch grid to read.
    """
    return _from_timm(name) if name.startswith(TIMM) else VFMS[name]


@cache
def _from_timm(name: str) -> VFMArchitecture:
    import timm
    import torch
    from timm.models import PretrainedCfg, get_pretrained_cfg
    from timm.models.hieradet_sam2 import HieraDet
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    from densecli.models.vfm import HIERA_STRIDE, build_vfm

    tagged = name.removeprefix(TIMM)
    model, _, tag = tagged.partition(".")
    if not timm.is_model(model):
        raise unknown_name("model in timm", model, timm.list_models("*vit*"))
    if tag and tagged not in timm.list_pretrained(f"{model}.*"):
        raise unknown_name("weights tag in timm", tagged, timm.list_pretrained(f"{model}.*"))
    about = get_pretrained_cfg(tagged) or PretrainedCfg()
    sketch = VFMArchitecture(name=name, timm=model, patch=HIERA_STRIDE, mean=about.mean, std=about.std)
    with torch.device("meta"):
        net = build_vfm(sketch).net
    if isinstance(net, HieraDet):
        return sketch
    # Other ViTs take inputs of one size unless they are told otherwise; SAM's takes any.
    options = {} if isinstance(net, VisionTransformerSAM) else {"dynamic_img_size": True}
    return replace(sketch, patch=net.patch_embed.patch_size[0], options=options)
