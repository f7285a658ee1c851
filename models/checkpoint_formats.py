"""Converts a student's weights to the names that other projects use; `checkpoints` reads them back.

The export formats themselves are in `densecli.train.exports`.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from timm.models import byobnet, convnext, eva, vision_transformer
from torch import Tensor, nn

from densecli.models.architecture import Architecture
from densecli.models.checkpoints import EVA_CLIP, inverse, rename
from densecli.models.dense import DenseCLIP, parse_mode
from densecli.models.eva import DenseEva
from densecli.models.siglip import DenseSigLIP
from densecli.models.student import DenseVFM, Student
from densecli.models.transformer import READS, DenseTransformer

_ATTENTION = {
    "qq": "q with q",
    "kk": "k with k",
    "vv": "v with v",
    "csa": "q with q plus k with k",
    "all": "the softmax of the mean of q with q, k with k and v with v",
}
_OPTIONS = {"scale": "logits divided by sqrt(d)", "rope": "with rotary positions"}
# timm's own filters by family: from a CLIP's state dict to that of the image tower.
_TIMM_FILTERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eva": eva.checkpoint_filter_fn,
    "vit": vision_transformer.checkpoint_filter_fn,
    "resnet": byobnet.checkpoint_filter_fn,
    "convnext": convnext.checkpoint_filter_fn,
    "siglip": vision_transformer.checkpoint_filter_fn,
}


def eva_weights(model: DenseEva) -> dict[str, Tensor]:
    """The weights under EVA-CLIP's names."""
    state = model.network.state_dict()
    return {rename(key, inverse(EVA_CLIP)): value for key, value in state.items()} | _rope_tables(model)


def openai_weights(model: DenseCLIP) -> dict[str, Tensor]:
    """The weights under OpenAI's names, with the three integers of its archives."""
    state = model.network.state_dict()
    return state | _openai_integers(model.arch, state)


def torchscript(weights: Mapping[str, Tensor]) -> bytes:
    """An archive of TorchScript that holds weights and no code, as OpenAI's `clip.load` reads it.

    Its own files are such archives: it calls `torch.jit.load(FILE).state_dict()`. A file of torch.save would
    be opened only after an attempt that has read the file to its end (EOFError).
    """
    root = nn.Module()
    for name, tensor in weights.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_buffer(leaf, tensor)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch's advice to export programs is not about files that others read.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(root), file)
    return file.getvalue()


def timm_weights(model: Student) -> dict[str, Tensor]:
    """The image tower's weights under timm's names."""
    return _image_tower(model) if isinstance(model, DenseCLIP) else model.network.state_dict()


def timm_model(model: Student) -> tuple[str, dict[str, Any]] | None:
    """Name and options with which `timm.create_model` makes the image tower, or None if it cannot."""
    if isinstance(model, DenseVFM):
        return model.arch.timm, {"num_classes": 0, **model.arch.options}
    config = model.arch.clip_config()
    vision, options = config["vision_cfg"], {"num_classes": config["embed_dim"]}
    if "timm_model_name" in vision:
        projection = vision.get("timm_proj")
        if projection == "none":
            # The output of an attention pool already has the embedding's width.
            options = {"num_classes": 0}
        elif projection == "mlp":
            # open_clip's projection is an MLP twice as wide as the embedding.
            options["head_hidden_size"] = 2 * config["embed_dim"]
        return vision["timm_model_name"], options
    if isinstance(model.arch.config, str) and model.arch.family == "resnet":
        return f"resnet{model.arch.config.removeprefix('RN').removesuffix('-quickgelu')}_clip", options
    if model.arch.family != "vit":
        return None
    # One name serves every size: the options below say everything except the activation.
    return f"vit_base_patch16_clip_{'quickgelu_' if config.get('quick_gelu') else ''}224", options | {
        "img_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "embed_dim": vision["width"],
        "depth": vision["layers"],
        "num_heads": vision["width"] // vision.get("head_width", 64),
    }


def mode_means(model: Student, mode: str) -> str:
    """Describes what a dense mode computes, for readers who do not have densecli."""
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
        extra = "".join(f", {words}" for option, words in _OPTIONS.items() if option in options)
        last = f"the last block's attention alone, no residual, no MLP: {_ATTENTION[name]}{extra}"
    unit = ", of unit norm" if name == "value" or "unit" in options else ""
    return f"{last}; then {head}{unit}"


def _rope_tables(model: DenseEva) -> dict[str, Tensor]:
    """The buffers of VisionRotaryEmbeddingFast on the native grid, for the tower and again for each block.

    EVA-CLIP's loaders need them, except when RoPE=1 is set in the environment, as `create_model` does.
    """
    side = model.arch.native_side // model.patch_size
    sin, cos = model.rope((side, side)).chunk(2, dim=-1)
    owners = ["visual", *(f"visual.blocks.{i}.attn" for i in range(len(model.blocks())))]
    return {f"{o}.rope.freqs_{n}": t for o in owners for n, t in (("cos", cos), ("sin", sin))}


def openai_builds(arch: Architecture) -> bool:
    """Whether OpenAI's `build_model`, which sees only the weights' shapes, would build this network."""
    config = arch.clip_config()
    vision, text = config["vision_cfg"], config["text_cfg"]
    return (
        arch.family in ("vit", "resnet")
        and config.get("quick_gelu", False)
        and vision.get("head_width", 64) == 64
        and text["heads"] == text["width"] // 64
    )


def _openai_integers(arch: Architecture, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The integers in OpenAI's archives, without which CAT-Seg's copy of `build_model` fails."""
    return {
        "input_resolution": torch.tensor(arch.native_side),
        "context_length": torch.tensor(len(state["positional_embedding"])),
        "vocab_size": torch.tensor(len(state["token_embedding.weight"])),
    }


def _image_tower(model: DenseCLIP) -> dict[str, Tensor]:
    name, options = timm_model(model) or ("", {})
    with torch.device("meta"):
        tower = timm.create_model(name, **options)
    found: dict[str, Tensor] = _TIMM_FILTERS[model.arch.family](dict(model.clip.state_dict()), tower)
    return found
