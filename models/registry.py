"""The architectures by name, and how to build one with its initial weights."""

from collections.abc import Callable
from typing import Any

import open_clip

from densecli.core.errors import DenseCLIError
from densecli.models.architecture import Architecture
from densecli.models.convnext import DenseConvNeXt
from densecli.models.dense import DenseCLIP
from densecli.models.eva import DenseEva, build_eva_clip
from densecli.models.resnet import DenseResNet
from densecli.models.vit import DenseViT
from densecli.scenes.vocabulary import SCENES_CONFIGS

FAMILIES: dict[str, Callable[[Any, Architecture], DenseCLIP]] = {
    "eva": DenseEva,
    "vit": DenseViT,
    "resnet": DenseResNet,
    "convnext": DenseConvNeXt,
}


def build(arch: Architecture) -> DenseCLIP:
    """The network with random weights from torch's current generator, in eval mode."""
    config = arch.clip_config()
    if "eva_model_name" in config["vision_cfg"]:
        clip = build_eva_clip(config)
    else:
        custom = config.pop("custom_text", False)
        clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    return FAMILIES[arch.family](clip, arch).eval()


_ARCHITECTURES = (
    Architecture(name="eva02-b16", family="eva", config="EVA02-B-16"),
    Architecture(name="eva02-l14-336", family="eva", config="EVA02-L-14-336"),
    Architecture(name="vit-b16", family="vit", config="ViT-B-16-quickgelu"),
    Architecture(name="vit-l14-336", family="vit", config="ViT-L-14-336-quickgelu"),
    Architecture(name="laion-vit-b16", family="vit", config="ViT-B-16"),
    Architecture(name="rn50", family="resnet", config="RN50-quickgelu"),
    Architecture(name="convnext-b", family="convnext", config="convnext_base_w"),
    *(Architecture(name=name, family="vit", config=c, words=True) for name, c in SCENES_CONFIGS.items()),
)
ARCHITECTURES: dict[str, Architecture] = {arch.name: arch for arch in _ARCHITECTURES}
ALIASES: dict[str, str] = {"vitb16": "eva02-b16", "vitl14": "eva02-l14-336"}
"""Short names of the teachers the papers use: the same architecture and the same weights."""
TUNED: dict[str, str] = {"scenes-pvlm": "scenes-l"}
"""Weights with a name of their own, and the architecture they are of."""


def resolve(name: str) -> Architecture:
    """The architecture of a name, alias or tuned model; DenseCLIError lists those there are."""
    others = ALIASES | TUNED
    try:
        return ARCHITECTURES[others.get(name, name)]
    except KeyError:
        known = ", ".join([*ARCHITECTURES, *(f"{other} (= {full})" for other, full in others.items())])
        raise DenseCLIError(f"There is no model called {name!r}.", hint=f"Known models: {known}.") from None
