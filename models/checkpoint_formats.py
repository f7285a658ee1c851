"""A student's weights in the layouts that other projects read; `checkpoints` reads those of a CLIP back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import byobnet, convnext, eva, vision_transformer
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.models.architecture import Architecture
from densecli.models.checkpoints import EVA_CLIP, inverse, rename
from densecli.models.dense import DenseCLIP, parse_mode
from densecli.models.eva import DenseEva
from densecli.models.siglip import DenseSigLIP
from densecli.models.student import DenseVFM, Student
from densecli.models.transformer import READS, DenseTransformer

LAYOUTS: Mapping[str, str] = {
    "open_clip": "OpenCLIP's",
    "eva": "that of EVA-CLIP's towers",
    "openai": "that of the ViTs and ResNets which OpenAI's loader builds",
    "timm": "timm's, for the image tower alone",
}
_ATTENTION = {
    "qq": "q with q",
    "kk": "k with k",
    "vv": "v with v",
    "csa": "q with q plus k with k",
    "all": "the softmax of the mean of q with q, k with k and v with v",
}
_OPTIONS = {"scale": "logits divided by sqrt(d)", "rope": "with rotary positions"}
# timm's own, by family: from a CLIP's state dict to that of the image tower.
_TIMM_FILTERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eva": eva.checkpoint_filter_fn,
    "vit": vision_transformer.checkpoint_filter_fn,
    "resnet": byobnet.checkpoint_filter_fn,
    "convnext": convnext.checkpoint_filter_fn,
    "siglip": vision_transformer.checkpoint_filter_fn,
}


def to_layout(model: Student, layout: str) -> dict[str, Tensor]:
    """The weights of a model by the names of a layout, perhaps sharing memory with it and with each other.

    No value is changed and none resized: positions stay those of the native grid, for consumers resize them
    themselves. The text tower and the logit scale come along in every layout but timm's. Raises DenseCLIError
    where the layout cannot hold the model.
    """
    if layout not in layouts_of(model):
        raise DenseCLIError(
            f"{model.arch.name} does not fit the layout {layout}, {LAYOUTS[layout]}.",
            hint=f"It can be exported as {' or '.join(layouts_of(model))}.",
        )
    state = model.network.state_dict()
    if isinstance(model, DenseEva) and layout == "eva":
        return {rename(key, inverse(EVA_CLIP)): value for key, value in state.items()} | _rope_tables(model)
    if isinstance(model, DenseCLIP) and layout == "openai":
        return state | _openai_integers(model.arch, state)
    if isinstance(model, DenseCLIP) and layout == "timm":
        return _image_tower(model)
    return state


def layouts_of(model: Student) -> tuple[str, ...]:
    """Those of `LAYOUTS` that can hold a model."""
    fits = {
        "open_clip": isinstance(model, DenseCLIP),
        "eva": isinstance(model, DenseEva),
        "openai": isinstance(model, DenseCLIP) and _openai_builds(model.arch),
        "timm": timm_model(model) is not None,
    }
    return tuple(layout for layout, fit in fits.items() if fit)


def timm_model(model: Student) -> tuple[str, dict[str, Any]] | None:
    """The name and options by which `timm.create_model` makes the image tower, None where it cannot."""
    if isinstance(model, DenseVFM):
        return model.arch.timm, {"num_classes": 0, **model.arch.options}
    config = model.arch.clip_config()
    vision, options = config["vision_cfg"], {"num_classes": config["embed_dim"]}
    if "timm_model_name" in vision:
        # An attention pool has the embedding's width already.
        pooled = {"num_classes": 0} if vision.get("timm_proj") == "none" else options
        return vision["timm_model_name"], pooled
    if isinstance(model.arch.config, str) and model.arch.family == "resnet":
        return f"resnet{model.arch.config.removeprefix('RN').removesuffix('-quickgelu')}_clip", options
    if model.arch.family != "vit":
        return None
    # One name for every size: the options say all that it stands for but the activation.
    return f"vit_base_patch16_clip_{'quickgelu_' if config.get('quick_gelu') else ''}224", options | {
        "img_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "embed_dim": vision["width"],
        "depth": vision["layers"],
        "num_heads": vision["width"] // vision.get("head_width", 64),
    }


def loads_with(model: Student, layout: str, file: str) -> str:
    """The Python that loads a file in a layout into what reads it."""
    if layout == "timm":
        name, options = timm_model(model) or ("", {})
        said = "".join(f", {option}={value!r}" for option, value in options.items())
        return f"timm.create_model({name!r}{said}, checkpoint_path={file!r})"
    if layout == "openai":
        return f"clip.load({file!r}, jit=False)"
    assert isinstance(model, DenseCLIP)  # a VFM has timm's layout only
    if isinstance(model.arch.config, Mapping):
        name, config = model.arch.name, str(Path(file).with_name(f"{model.arch.name}.json"))
        return (
            f"open_clip.add_model_config({config!r}); open_clip.create_model({name!r}, pretrained={file!r})"
        )
    name = model.arch.config
    if layout == "eva":
        name = name.replace("EVA02-", "EVA02-CLIP-")
        return f"eva_clip.create_model({name!r}, pretrained={file!r}, force_custom_clip=True)"
    return f"open_clip.create_model({name!r}, pretrained={file!r})"


def open_clip_config(model: Student, layout: str) -> dict[str, Any] | None:
    """The configuration that open_clip has to be given for a network it does not know by name, else None."""
    if layout != "open_clip" or isinstance(model, DenseVFM) or isinstance(model.arch.config, str):
        return None
    return model.arch.clip_config()


def mode_means(model: Student, mode: str) -> str:
    """What a dense mode makes of the network, in words that need no densecli."""
    if isinstance(model, DenseVFM):
        return "the patch tokens after the final norm, of unit norm"
    if isinstance(model, DenseSigLIP):
        head = "the final norm and, in every token, the attention pool's value and output projections and MLP"
    else:
        head = "the final norm and the projection of every token"
    if not isinstance(model, DenseTransformer):
        norm = ", of unit norm" if mode == "value" else ""
        return f"the last map through the head at every location: value and output projections{norm}"
    name, options = parse_mode(mode)
    if name == "vanilla":
        last = "the last block as it is"
    elif name not in READS:
        last = "the last block without attention, x + proj(ln(v(norm1(x)))) and x + mlp(norm2(x))"
    else:
        said = "".join(f", {words}" for option, words in _OPTIONS.items() if option in options)
        last = f"the last block's attention alone, no residual, no MLP: {_ATTENTION[name]}{said}"
    unit = ", of unit norm" if name == "value" or "unit" in options else ""
    return f"{last}; then {head}{unit}"


def _rope_tables(model: DenseEva) -> dict[str, Tensor]:
    """The buffers of VisionRotaryEmbeddingFast on the native grid, of the tower and again of each block.

    EVA-CLIP's loaders leave them out where the environment has RoPE=1, as their `create_model` sets it, and
    miss them elsewhere.
    """
    side = model.arch.native_side // model.patch_size
    sin, cos = model.rope((side, side)).chunk(2, dim=-1)
    owners = ["visual", *(f"visual.blocks.{i}.attn" for i in range(len(model.blocks())))]
    return {f"{o}.rope.freqs_{n}": t for o in owners for n, t in (("cos", cos), ("sin", sin))}


def _openai_builds(arch: Architecture) -> bool:
    """Whether OpenAI's `build_model`, which sees shapes only, would make this very network of its weights."""
    config = arch.clip_config()
    vision, text = config["vision_cfg"], config["text_cfg"]
    return (
        arch.family in ("vit", "resnet")
        and config.get("quick_gelu", False)
        and vision.get("head_width", 64) == 64
        and text["heads"] == text["width"] // 64
    )


def _openai_integers(arch: Architecture, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What OpenAI's archives hold beside weights. CAT-Seg's copy of `build_model` fails where they lack."""
    return {
        "input_resolution": torch.tensor(arch.native_side),
        "context_length": torch.tensor(len(state["positional_embedding"])),
        "vocab_size": torch.tensor(len(state["token_embedding.weight"])),
    }


def _image_tower(model: DenseCLIP) -> dict[str, Tensor]:
    name, options = timm_model(model) or ("", {})
    with torch.device("meta"):
        tower = timm.create_model(name, **options)
    return _TIMM_FILTERS[model.arch.family](dict(model.clip.state_dict()), tower)
