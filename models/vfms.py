"""Vision foundation models by name. Importing this loads no torch."""

from densecli.core.registry import Registry, registry
from densecli.models.architecture import Architecture
from densecli.models.registry import resolve
from densecli.models.timm_models import TIMM, from_timm
from densecli.models.vfm_architecture import VFMArchitecture

# segment_anything's own pixel_mean and pixel_std, over 255.
SAM_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
SAM_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


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


def is_vfm(name: str) -> bool:
    """Whether a name stands for a vision foundation model."""
    return name.startswith(TIMM) or name in VFMS


def find_vfm(name: str) -> VFMArchitecture:
    """Finds the architecture of a vision foundation model.

    Args:
        name: A registered name, or timm/NAME with timm's name of a ViT, with or without the tag of its
            weights: timm/vit_base_patch14_reg4_dinov2.lvd142m.

    Raises:
        DenseCLIError: There is no such model (the hint has the nearest names), or it has no patch grid.
    """
    return from_timm(name) if name.startswith(TIMM) else VFMS[name]


def architecture_of(name: str) -> Architecture | VFMArchitecture:
    """The architecture of a CLIP or a VFM. Raises DenseCLIError for another name."""
    return find_vfm(name) if is_vfm(name) else resolve(name)
