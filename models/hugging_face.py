"""The names of `transformers.CLIPModel` for the weights of OpenAI's kind of ViTs, in both directions."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from densecli.models.architecture import Architecture

VOCABULARY = 49408
"""Tokens of CLIP's own tokenizer, the only one that a folder for transformers holds."""
_VISION_KEYS = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers"}
_POSITIONS = "embeddings.position_ids"
"""A constant in older files of theirs."""
# open_clip's name: theirs, and whether the matrix is stored turned.
_NAMES: Mapping[str, tuple[str, bool]] = {
    "logit_scale": ("logit_scale", False),
    "text_projection": ("text_projection.weight", True),
    "positional_embedding": ("text_model.embeddings.position_embedding.weight", False),
    "token_embedding.weight": ("text_model.embeddings.token_embedding.weight", False),
    "ln_final.weight": ("text_model.final_layer_norm.weight", False),
    "ln_final.bias": ("text_model.final_layer_norm.bias", False),
    "visual.proj": ("visual_projection.weight", True),
    "visual.class_embedding": ("vision_model.embeddings.class_embedding", False),
    "visual.positional_embedding": ("vision_model.embeddings.position_embedding.weight", False),
    "visual.conv1.weight": ("vision_model.embeddings.patch_embedding.weight", False),
    # Their own spelling.
    "visual.ln_pre.weight": ("vision_model.pre_layrnorm.weight", False),
    "visual.ln_pre.bias": ("vision_model.pre_layrnorm.bias", False),
    "visual.ln_post.weight": ("vision_model.post_layernorm.weight", False),
    "visual.ln_post.bias": ("vision_model.post_layernorm.bias", False),
}
_OURS = {theirs: (ours, turned) for ours, (theirs, turned) in _NAMES.items()}
_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUR_LAYERS = {theirs: ours for ours, theirs in _LAYERS.items()}
_BLOCKS = {"visual.transformer.resblocks.": "vision_model.encoder.layers.",
           "transformer.resblocks.": "text_model.encoder.layers."}  # fmt: skip


def hugging_face_builds(arch: Architecture) -> bool:
    """Whether `transformers.CLIPModel` is this network, and its tokenizer that of CLIP."""
    config = arch.clip_config()
    return (
        arch.family == "vit"
        and arch.tokenizer is None
        and config["text_cfg"]["vocab_size"] == VOCABULARY
        and config["vision_cfg"].keys() <= _VISION_KEYS
        and config["text_cfg"].keys() <= _TEXT_KEYS
        and config.keys() <= {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
    )


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by open_clip's names -> by theirs: q, k and v apart, projections turned. Values stay."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in _NAMES:
            name, turned = _NAMES[key]
            found[name] = value.T if turned else value
            continue
        ours, theirs = next(pair for pair in _BLOCKS.items() if key.startswith(pair[0]))
        number, _, rest = key.removeprefix(ours).partition(".")
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[f"{theirs}{number}.self_attn.{letter}_proj.{kind}"] = part
        else:
            part_name, _, kind = rest.rpartition(".")
            found[f"{theirs}{number}.{_LAYERS[part_name]}.{kind}"] = value
    return found


def is_hugging_face(state: Mapping[str, Any]) -> bool:
    """Whether weights have their names."""
    return "vision_model.embeddings.class_embedding" in state


def from_hugging_face(state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights by their names -> by open_clip's. What has no name there keeps its own."""
    found: dict[str, Any] = {}
    for key, value in state.items():
        if key.endswith(_POSITIONS):
            continue
        if key in _OURS:
            name, turned = _OURS[key]
            found[name] = value.T if turned and isinstance(value, Tensor) else value
            continue
        ours, theirs = next((pair for pair in _BLOCKS.items() if key.startswith(pair[1])), ("", ""))
        number, _, rest = key.removeprefix(theirs).partition(".")
        part, _, kind = rest.rpartition(".")
        if theirs and part == "self_attn.q_proj":
            parts = [state.get(f"{theirs}{number}.self_attn.{letter}_proj.{kind}") for letter in "qkv"]
            if all(isinstance(each, Tensor) for each in parts):
                found[f"{ours}{number}.attn.in_proj_{kind}"] = torch.cat(parts)  # type: ignore[arg-type]
                continue
        elif theirs and part in ("self_attn.k_proj", "self_attn.v_proj"):
            # Taken with q; without it, it is told as unexpected.
            if f"{theirs}{number}.self_attn.q_proj.{kind}" in state:
                continue
        elif theirs and part in _OUR_LAYERS:
            found[f"{ours}{number}.{_OUR_LAYERS[part]}.{kind}"] = value
            continue
        found[key] = value
    return found
