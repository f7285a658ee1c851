"""CLIPs by name, the families of their networks, and how to build one. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from densecli.core.registry import Registry, registry
from densecli.models.architecture import Architecture
from densecli.models.open_clip_models import OPEN_CLIP, from_open_clip
from densecli.models.published import Published

if TYPE_CHECKING:
    from densecli.models.dense import DenseCLIP

MODELS: Registry[Architecture] = registry("models", noun="model", of=Architecture)
"""CLIPs by name. Weights tuned further are an entry of their own, with the name of the same architecture."""

FAMILIES: Registry[Callable[[Any, Architecture], DenseCLIP]] = registry(
    "families", noun="family of CLIPs", of=Callable
)
"""The classes that read an open_clip model out per token."""

for family, target, help in (
    ("eva", "densecli.models.eva:DenseEva", "EVA-02 CLIP's ViT with rotary positions."),
    ("vit", "densecli.models.vit:DenseViT", "The ViTs of OpenAI and OpenCLIP."),
    ("resnet", "densecli.models.resnet:DenseResNet", "OpenAI's ResNets with attention pooling."),
    ("convnext", "densecli.models.convnext:DenseConvNeXt", "OpenCLIP's ConvNeXts."),
    ("siglip", "densecli.models.siglip:DenseSigLIP", "SigLIP's and SigLIP 2's ViTs with attention pooling."),
):
    FAMILIES.add_lazy(family, target, help=help)

# SigLIP takes pixels from -1 to 1.
HALF = (0.5, 0.5, 0.5)

for arch, help in (
    (
        Architecture(
            name="eva02-b16",
            family="eva",
            config="EVA02-B-16",
            size="base",
            aliases=("vitb16",),
            published=Published(
                address="hf-hub:QuanSun/EVA-CLIP/EVA02_CLIP_B_psz16_s8B.pt", megabytes=299, licence="mit"
            ),
        ),
        "EVA-CLIP ViT-B/16 at 224 px, the papers' student.",
    ),
    (
        Architecture(
            name="eva02-l14-336",
            family="eva",
            config="EVA02-L-14-336",
            size="large",
            aliases=("vitl14",),
            published=Published(
                address="hf-hub:QuanSun/EVA-CLIP/EVA02_CLIP_L_336_psz14_s6B.pt", megabytes=856, licence="mit"
            ),
        ),
        "EVA-CLIP ViT-L/14 at 336 px, the papers' P-VLM.",
    ),
    (
        Architecture(
            name="vit-b16",
            family="vit",
            config="ViT-B-16-quickgelu",
            size="base",
            published=Published(address="open_clip:openai", megabytes=598, licence="mit"),
        ),
        "OpenAI's CLIP ViT-B/16 at 224 px.",
    ),
    (
        Architecture(
            name="vit-l14-336",
            family="vit",
            config="ViT-L-14-336-quickgelu",
            size="large",
            published=Published(address="open_clip:openai", megabytes=1712, licence="mit"),
        ),
        "OpenAI's CLIP ViT-L/14 at 336 px.",
    ),
    (
        Architecture(
            name="laion-vit-b16",
            family="vit",
            config="ViT-B-16",
            size="base",
            published=Published(address="open_clip:laion2b_s34b_b88k", megabytes=598, licence="mit"),
        ),
        "OpenCLIP's ViT-B/16 at 224 px, trained on LAION.",
    ),
    (
        Architecture(
            name="rn50",
            family="resnet",
            config="RN50-quickgelu",
            published=Published(address="open_clip:openai", megabytes=408, licence="mit"),
        ),
        "OpenAI's CLIP ResNet-50 at 224 px.",
    ),
    (
        Architecture(
            name="convnext-b",
            family="convnext",
            config="convnext_base_w",
            published=Published(address="open_clip:laion2b_s13b_b82k_augreg", megabytes=718, licence="mit"),
        ),
        "OpenCLIP's ConvNeXt-B at 256 px, trained on LAION.",
    ),
    (
        Architecture(
            name="rn50x4",
            family="resnet",
            config="RN50x4-quickgelu",
            published=Published(address="open_clip:openai", megabytes=714, licence="mit"),
        ),
        "OpenAI's CLIP ResNet-50x4 at 288 px.",
    ),
    (
        Architecture(
            name="laion-vit-l14",
            family="vit",
            config="ViT-L-14",
            size="large",
            published=Published(address="open_clip:laion2b_s32b_b82k", megabytes=1710, licence="mit"),
        ),
        "OpenCLIP's ViT-L/14 at 224 px, trained on LAION.",
    ),
    (
        Architecture(
            name="convnext-l",
            family="convnext",
            config="convnext_large_d_320",
            published=Published(
                address="open_clip:laion2b_s29b_b131k_ft_soup", megabytes=1407, licence="mit"
            ),
        ),
        "OpenCLIP's ConvNeXt-L at 320 px, trained on LAION.",
    ),
    (
        Architecture(
            name="siglip-b16",
            family="siglip",
            config="ViT-B-16-SigLIP",
            size="base",
            mean=HALF,
            std=HALF,
            published=Published(address="open_clip:webli", megabytes=813, licence="apache-2.0"),
        ),
        "SigLIP ViT-B/16 at 224 px.",
    ),
    (
        Architecture(
            name="siglip2-b16",
            family="siglip",
            config="ViT-B-16-SigLIP2",
            size="base",
            mean=HALF,
            std=HALF,
            published=Published(address="open_clip:webli", megabytes=1501, licence="apache-2.0"),
        ),
        "SigLIP 2 ViT-B/16 at 224 px.",
    ),
):
    MODELS.add(arch.name, arch, help=help)
    for alias in arch.aliases:
        MODELS.add(alias, arch, help=f"Short for {arch.name}.")


def resolve(name: str) -> Architecture:
    """Finds the architecture of a model.

    Args:
        name: A model's name or alias, or open_clip/NAME with a name of open_clip.

    Raises:
        DenseCLIError: There is no such model (the hint has the nearest names), or its family cannot be read
            out per token.
    """
    return from_open_clip(name) if name.startswith(OPEN_CLIP) else MODELS[name]


def is_clip(name: str) -> bool:
    """Whether a name stands for a CLIP."""
    return name.startswith(OPEN_CLIP) or name in MODELS


def canonical(name: str) -> str:
    """Replaces an alias by the name of its architecture; leaves other names as they are."""
    return MODELS[name].name if name in MODELS and name in MODELS[name].aliases else name


def build(arch: Architecture) -> DenseCLIP:
    """Builds a network with random weights from torch's current generator, in eval mode."""
    import open_clip

    from densecli.models.eva import build_eva_clip

    config = arch.clip_config()
    clip: Any
    if "eva_model_name" in config["vision_cfg"]:
        clip = build_eva_clip(config)
    else:
        custom = config.pop("custom_text", False)
        clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    return FAMILIES[arch.family](clip, arch).eval()


def size_of(name: str) -> str:
    """`Architecture.size` of a model; empty for a name that is no CLIP's, such as a VFM's."""
    return resolve(name).size if is_clip(name) else ""
