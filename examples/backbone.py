"""A CLIP of a family that densecli reads: a small ViT, described by an open_clip configuration."""

from densecli.models.architecture import Architecture
from densecli.models.registry import MODELS

MODELS.add(
    "tiny-vit",
    Architecture(
        name="tiny-vit",
        family="vit",
        config={
            "embed_dim": 64,
            "vision_cfg": {"image_size": 96, "patch_size": 16, "width": 96, "layers": 3, "head_width": 32},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
        },
    ),
    help="A ViT with three blocks of width 96, patch 16.",
)
