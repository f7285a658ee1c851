"""ViTs of timm as vision foundation models, by their name there. Importing this loads no torch."""

from dataclasses import replace
from functools import cache

from densecli.core.hub_file import HUB
from densecli.core.registry import unknown_name
from densecli.models.published import Published
from densecli.models.vfm_architecture import VFMArchitecture

TIMM = "timm/"
"""Prefix of a name in timm, for ViTs that are not registered."""


@cache
def from_timm(name: str) -> VFMArchitecture:
    """Describes a ViT of timm.

    Args:
        name: timm/NAME, such as timm/vit_base_patch14_reg4_dinov2.lvd142m.

    Raises:
        DenseCLIError: timm has no such model (the hint has the nearest names), or it has no patch grid.
    """
    import timm
    import torch
    from timm.models import PretrainedCfg, get_pretrained_cfg
    from timm.models.hieradet_sam2 import HieraDet
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    from densecli.models.vfm import HIERA_STRIDE, build_vfm

    tagged = name.removeprefix(TIMM)
    model, _, tag = tagged.partition(".")
    if not timm.is_model(model):
        raise unknown_name("model in timm", model, timm.list_models("*vit*"))
    if tag and tagged not in timm.list_pretrained(f"{model}.*"):
        raise unknown_name("weights tag in timm", tagged, timm.list_pretrained(f"{model}.*"))
    about = get_pretrained_cfg(tagged) or PretrainedCfg()
    published = None
    if about.hf_hub_id:
        file = about.hf_hub_filename or "model.safetensors"
        published = Published(address=f"{HUB}{about.hf_hub_id}/{file}", licence=about.license or "")
    sketch = VFMArchitecture(
        name=name, timm=model, patch=HIERA_STRIDE, published=published, mean=about.mean, std=about.std
    )
    with torch.device("meta"):
        net = build_vfm(sketch).net
    if isinstance(net, HieraDet):
        return sketch
    # SAM's ViT takes inputs of any size; other ViTs need an option for that.
    options = {} if isinstance(net, VisionTransformerSAM) else {"dynamic_img_size": True}
    return replace(sketch, patch=net.patch_embed.patch_size[0], options=options)
