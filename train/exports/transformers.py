"""The folder that `transformers.CLIPModel` reads: weights, configurations, tokenizer, model card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecli.models.dense import DenseCLIP
from densecli.models.hugging_face import hugging_face_builds, to_hugging_face
from densecli.models.student import Student
from densecli.train.exports import EXPORTS, ExportFormat

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_VALUE = """\
```python
pixels = processor(images=photo, return_tensors="pt").pixel_values
last = model.vision_model.encoder.layers[-1]
seen = model.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
tokens = seen + last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(seen)))
tokens = tokens + last.mlp(last.layer_norm2(tokens))
tokens = model.visual_projection(model.vision_model.post_layernorm(tokens))[:, 1:]
dense = torch.nn.functional.normalize(tokens, dim=-1)  # a row for each patch, comparable to text features
```
"""


def fits(model: Student) -> bool:
    """See `ExportFormat.fits`."""
    return isinstance(model, DenseCLIP) and hugging_face_builds(model.arch)


def weights(model: Student) -> Mapping[str, Any]:
    """See `ExportFormat.weights`."""
    assert isinstance(model, DenseCLIP)
    return to_hugging_face(model.network.state_dict())


def files(model: Student, card: Mapping[str, Any]) -> Mapping[str, bytes]:
    """See `ExportFormat.files`."""
    assert isinstance(model, DenseCLIP)
    return {
        "config.json": _json(model_config(model)),
        "preprocessor_config.json": _json(processor_config(model)),
        **tokenizer_files(model),
        "README.md": readme(model, card).encode(),
    }


def model_config(model: DenseCLIP) -> dict[str, Any]:
    """The configuration of `transformers.CLIPModel`."""
    config = model.arch.clip_config()
    vision, text = config["vision_cfg"], config["text_cfg"]
    common = {
        "projection_dim": config["embed_dim"],
        "hidden_act": "quick_gelu" if config.get("quick_gelu") else "gelu",
        "layer_norm_eps": 1e-5,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config["embed_dim"],
        "torch_dtype": "float32",
        "text_config": {
            **common,
            "model_type": "clip_text_model",
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
            "pad_token_id": text["vocab_size"] - 1,
        },
        "vision_config": {
            **common,
            "model_type": "clip_vision_model",
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "num_channels": 3,
        },
    }


def processor_config(model: DenseCLIP) -> dict[str, Any]:
    """CLIP's own preparation of whole images."""
    side = model.arch.native_side
    return {
        "processor_class": "CLIPProcessor",
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(model.arch.mean),
        "image_std": list(model.arch.std),
    }


def tokenizer_files(model: DenseCLIP) -> dict[str, bytes]:
    """The vocabulary and the merges of CLIP's tokenizer, as open_clip carries them."""
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    # open_clip calls the last two <start_of_text> and <end_of_text>.
    names = [*list(tokenizer.encoder)[:-2], BOS, EOS]
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    length = model.arch.clip_config()["text_cfg"]["context_length"]
    return {
        "vocab.json": json.dumps(
            {name: number for number, name in enumerate(names)}, ensure_ascii=False
        ).encode(),
        "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, merges), ""]).encode(),
        "special_tokens_map.json": _json(special),
        "tokenizer_config.json": _json(
            {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True}
        ),
    }


def readme(model: DenseCLIP, card: Mapping[str, Any]) -> str:
    """The model card of a hub, with its metadata."""
    random = (
        "\n**Its training began with random weights: it is good for tests only.**\n" * card["random_weights"]
    )
    value = f"\nWith `transformers`, on photos of {model.arch.native_side} px:\n\n{_VALUE}"
    facts = {
        "architecture": card["student"],
        "read-out": card["mode"],
        "canvas of the training": f"{card.get('image_size')} px",
        "method": card.get("method"),
        "share of the trained weights (alpha)": card.get("alpha"),
        "initial weights": (card.get("initial_weights") or {}).get("sha256"),
        "store": card.get("store"),
        "densecli": card["densecli"],
    }
    rows = [f"| {name} | {value} |" for name, value in facts.items() if value is not None]
    return f"""---
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip, densecli, dense-prediction]
---

# {card["student"]}, trained by densecli
{random}
A CLIP whose image tower was trained for dense prediction; text tower and logit scale are those it began with.

```python
from transformers import CLIPModel, CLIPProcessor

model, processor = CLIPModel.from_pretrained("."), CLIPProcessor.from_pretrained(".")
```

`get_image_features` is the whole-image reading. Regions are read out of the patches: {card["mode_means"]}.
{value if card["mode"] == "value" else ""}
| | |
|---|---|
{chr(10).join(rows)}

`model.card.json` has all that is known of the weights. Their licence is that of the initial weights.
"""


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


EXPORTS.add(
    "transformers",
    ExportFormat(
        reader="transformers.CLIPModel's, a folder",
        file_format="safetensors",
        fits=fits,
        weights=weights,
        load=lambda model, file: f"transformers.CLIPModel.from_pretrained({str(Path(file).parent)!r})",
        files=files,
    ),
    help="Hugging Face: a folder for transformers.CLIPModel and CLIPProcessor, of OpenAI's kind of ViTs.",
)
