"""Small networks under the names of the papers' models, for commands as a page writes them."""

from dataclasses import replace

import pytest
from registries import put

from densecli.models.prompts import TEMPLATES
from densecli.models.registry import MODELS

VISION = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "eva_model_name": "small"}
ROTARY = {"mlp_ratio": 2.6667, "rope": True, "pt_hw_seq_len": 16, "naiveswiglu": True, "subln": True}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
PATCHES = {"eva02-l14-336": 14, "eva02-b16": 16}


def small_models(patch: pytest.MonkeyPatch) -> None:
    """EVA-CLIP's models have two blocks of width 64, and one prompt for each name in place of 80."""
    patch.setitem(TEMPLATES, "imagenet", TEMPLATES["plain"])
    for name, size in PATCHES.items():
        vision = {**VISION, **ROTARY, "patch_size": size}
        small = replace(MODELS[name], config={"embed_dim": 64, "vision_cfg": vision, "text_cfg": TEXT})
        for each in (name, *small.aliases):
            put(patch, MODELS, each, small)
