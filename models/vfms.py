"""Vision foundation models by name. Importing this loads no torch."""

from densecli.core.registry import Registry, registry
from densecli.models.architecture import Architecture
from densecli.models.published import Published
from densecli.models.registry import resolve
from densecli.models.timm_models import TIMM, from_timm
from densecli.models.vfm_architecture import IMAGENET_MEAN, IMAGENET_STD, VFMArchitecture

# segment_anything's own pixel_mean and pixel_std, over 255.
SAM_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
SAM_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


VFMS: Registry[VFMArchitecture] = registry("vfms", noun="vision foundation model", of=VFMArchitecture)
"""Vision foundation models by name."""


def _at_timm(tagged: str, megabytes: int) -> Published:
    """The repository of weights that timm has converted."""
    return Published(
        address=f"hf-hub:timm/{tagged}/model.safetensors", megabytes=megabytes, licence="apache-2.0"
    )


for registers, tag in (("", ""), ("-reg", "_reg4")):
    for short, size, megabytes in (
        ("vits14", "small", 88),
        ("vitb14", "base", 346),
        ("vitl14", "large", 1217),
    ):
        name, timm = f"dinov2-{short}{registers}", f"vit_{size}_patch14{tag}_dinov2"
        VFMS.add(
            name,
            VFMArchitecture(name=name, timm=timm, patch=14, published=_at_timm(f"{timm}.lvd142m", megabytes)),
            help=f"DINOv2 ViT-{short[3].upper()}/14{' with registers' if registers else ''}.",
        )
for name, timm, patch, tag, megabytes, help in (
    ("dino-vitb16", "vit_base_patch16_224", 16, "dino", 343, "DINO ViT-B/16."),
    ("dino-vitb8", "vit_base_patch8_224", 8, "dino", 343, "DINO ViT-B/8."),
    ("sam-b", "samvit_base_patch16", 16, "sa1b", 359, "Segment Anything's image encoder, ViT-B."),
    ("sam-l", "samvit_large_patch16", 16, "sa1b", 1233, "Segment Anything's image encoder, ViT-L."),
):
    mean, std = (SAM_MEAN, SAM_STD) if tag == "sa1b" else (IMAGENET_MEAN, IMAGENET_STD)
    published = _at_timm(f"{timm}.{tag}", megabytes)
    arch = VFMArchitecture(name=name, timm=timm, patch=patch, published=published, mean=mean, std=std)
    VFMS.add(name, arch, help=help)


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
