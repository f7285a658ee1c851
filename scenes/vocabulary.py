"""The generated world's categories and words, and the configurations of its CLIPs and its VFM."""

from typing import Any

THINGS = (
    "boat",
    "kite",
    "ball",
    "umbrella",
    "sheep",
    "bird",
    "balloon",
    "car",
    "bus",
    "clock",
    "snowman",
    "chair",
)
STUFF = ("sky", "water", "sand", "grass", "wall", "road", "snow", "floor")
NAMES = THINGS + STUFF
IMAGE_SIZE = 96
WORDS = ("a", "an", "and", "of", "photo", "the", "with", *NAMES)
"""Every word that a caption or a prompt of this world may use."""
CONTEXT_LENGTH = 32


def _clip_config(*, embed_dim: int, width: int, layers: int) -> dict[str, Any]:
    return {
        "embed_dim": embed_dim,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "patch_size": 12,
            "width": width,
            "layers": layers,
            "head_width": 24,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": len(WORDS) + 3,
            "width": 64,
            "heads": 4,
            "layers": 2,
        },
    }


SCENES_CONFIGS: dict[str, dict[str, Any]] = {
    "scenes-l": _clip_config(embed_dim=96, width=144, layers=5),
    "scenes-s": _clip_config(embed_dim=64, width=96, layers=4),
}

# Changes to timm's ViT-Tiny: its grid of 8 x 8 tokens is that of the student.
VFM_CONFIG: dict[str, Any] = {
    "img_size": IMAGE_SIZE,
    "patch_size": 12,
    "embed_dim": 80,
    "depth": 4,
    "num_heads": 4,
}
