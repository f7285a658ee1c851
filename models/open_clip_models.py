"""Models of open_clip by their name there, if their family can be read out per token."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from densecli.core.errors import DenseCLIError
from densecli.core.registry import unknown_name
from densecli.models.architecture import OPENAI_MEAN, OPENAI_STD, Architecture
from densecli.models.published import Published

OPEN_CLIP = "open_clip/"
"""Prefix of a name in open_clip, for models that are not registered."""
OPEN_CLIP_TAG = "open_clip:"
"""Prefix of a tag in open_clip's table of published weights."""
# Settings that make an open_clip ViT a network other than OpenAI's, which cannot be read out here.
_OTHER_VITS = ("attentional_pool", "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn",
               "scale_attn_inner", "scale_fc", "final_ln_after_pool")  # fmt: skip
_SIZES: Mapping[tuple[int, int], Literal["base", "large"]] = {(12, 768): "base", (24, 1024): "large"}


@cache
def from_open_clip(name: str) -> Architecture:
    """Describes a model of open_clip.

    Args:
        name: open_clip/NAME, such as open_clip/ViT-B-16-SigLIP2.

    Raises:
        DenseCLIError: open_clip has no such model (the hint has the nearest names), or its family cannot be
            read out per token.
    """
    import open_clip

    theirs = name.removeprefix(OPEN_CLIP)
    config = open_clip.get_model_config(theirs)
    if config is None:
        raise unknown_name("model in open_clip", theirs, open_clip.list_models())
    family = family_of(config)
    if family is None:
        raise DenseCLIError(
            f"The family of {name} cannot be read out per token.",
            hint="Choose a model of these families: OpenAI's and OpenCLIP's ViTs and ResNets with CLIP's "
            "text tower, ConvNeXt, EVA-02 (B and L), SigLIP and SigLIP 2.",
        )
    tags = open_clip.list_pretrained_tags_by_model(theirs)
    published = open_clip.get_pretrained_cfg(theirs, tags[0]) if tags else {}
    return Architecture(
        name=name,
        family=family,
        config=theirs,
        size=_size(config["vision_cfg"]),
        mean=tuple(published.get("mean") or OPENAI_MEAN),
        std=tuple(published.get("std") or OPENAI_STD),
        # Of several, the user has to choose.
        published=Published(address=f"{OPEN_CLIP_TAG}{tags[0]}") if len(tags) == 1 else None,
    )


def family_of(config: Mapping[str, Any]) -> str | None:
    """The name in `FAMILIES` for an open_clip configuration, or None if no family reads such a network."""
    vision = config["vision_cfg"]
    if "multimodal_cfg" in config or "hf_model_name" in config["text_cfg"]:
        return None
    trunk, pool = vision.get("timm_model_name"), vision.get("timm_pool")
    if trunk is None:
        if isinstance(vision["layers"], list):
            return "resnet"
        plain = vision.get("pool_type", "tok") == "tok" and not any(vision.get(key) for key in _OTHER_VITS)
        return "vit" if plain else None
    if trunk.startswith("convnext_") and pool == "":
        return "convnext"
    if trunk.startswith(("eva02_base_", "eva02_large_")) and pool == "token":
        return "eva"
    return "siglip" if "_siglip_" in trunk and pool == "map" else None


def _size(vision: Mapping[str, Any]) -> Literal["", "base", "large"]:
    trunk = vision.get("timm_model_name")
    if trunk is None:
        return (
            "" if isinstance(vision["layers"], list) else _SIZES.get((vision["layers"], vision["width"]), "")
        )
    if trunk.startswith("convnext"):
        return ""
    return "base" if "_base_" in trunk else "large" if "_large_" in trunk else ""
