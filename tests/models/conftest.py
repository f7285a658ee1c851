"""What the model tests share: a tiny EVA-CLIP and the small networks of the other families."""

from collections.abc import Callable

import pytest
import torch
from small_siglip import SIGLIP, TEXT

from densecli.models.architecture import Architecture
from densecli.models.dense import DenseCLIP
from densecli.models.registry import build

EVA = {
    "embed_dim": 32,
    "vision_cfg": {
        "eva_model_name": "tiny",
        "image_size": 64,
        "layers": 2,
        "width": 64,
        "head_width": 32,
        "patch_size": 16,
        "mlp_ratio": 2.6667,
        "rope": True,
        "pt_hw_seq_len": 16,
        "naiveswiglu": True,
        "subln": True,
    },
    "text_cfg": TEXT,
}
VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": TEXT,
}
RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": TEXT,
}
CONVNEXT = {
    "embed_dim": 32,
    "vision_cfg": {
        "timm_model_name": "convnext_atto",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 64,
    },
    "text_cfg": TEXT,
}
CONFIGS = {"eva": EVA, "vit": VIT, "resnet": RESNET, "convnext": CONVNEXT, "siglip": SIGLIP}


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], DenseCLIP]:
    """A function of a family's name -> a small network of it, the same weights every time."""

    def make(family: str) -> DenseCLIP:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build(Architecture(name=f"tiny-{family}", family=family, config=CONFIGS[family]))

    return make


@pytest.fixture(params=list(CONFIGS))
def model(request: pytest.FixtureRequest, tiny: Callable[[str], DenseCLIP]) -> DenseCLIP:
    """One of each family."""
    return tiny(request.param)
