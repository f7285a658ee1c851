"""A SigLIP that builds in no time, described as open_clip describes one."""

from typing import Any

from timm.models import VisionTransformer, register_model
from timm.models.vision_transformer import vit_base_patch16_siglip_224


@register_model
def vit_nano_patch16_siglip_64(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """A SigLIP tower that builds in no time: open_clip passes no sizes on to timm."""
    return vit_base_patch16_siglip_224(pretrained, img_size=64, embed_dim=32, depth=2, num_heads=2, **options)


TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
SIGLIP = {
    "embed_dim": 32,
    "custom_text": True,
    "init_logit_bias": -10,
    "vision_cfg": {
        "timm_model_name": "vit_nano_patch16_siglip_64",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
        "image_size": 64,
    },
    "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
}
