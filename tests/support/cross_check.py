"""Our image encoders beside open_clip's and timm's own forward passes, with the same random weights.

Theirs is a second network that the library builds, at the side of its input. Its dense map is its own forward
pass in which a token of the last block sees itself only: that is what reading values out means. The tests
compare networks of few blocks, and this file whole ones, in minutes and up to 7 GB of memory:

    python tests/support/cross_check.py
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any
from unittest import mock

import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from timm.models import register_model
from timm.models.convnext import convnext_large
from timm.models.vision_transformer import vit_base_patch16_siglip_224
from torch import Tensor, nn

from densecli.models.dense import DenseCLIP
from densecli.models.registry import FAMILIES, build, resolve
from densecli.models.vfm import build_vfm
from densecli.models.vfms import find_vfm

CLIPS = ("rn50x4", "laion-vit-l14", "convnext-l", "siglip-b16", "siglip2-b16")
NAMES = (*CLIPS, "sam-l")


@register_model
def convnext_large_shallow(pretrained: bool = False, **options: Any) -> nn.Module:
    """ConvNeXt-L with one block a stage."""
    return convnext_large(pretrained, depths=(1, 1, 1, 1), **options)


@register_model
def vit_base_patch16_siglip_224_shallow(pretrained: bool = False, **options: Any) -> nn.Module:
    """SigLIP's ViT-B with two blocks."""
    return vit_base_patch16_siglip_224(pretrained, depth=2, **options)


def shallow(config: dict[str, Any]) -> dict[str, Any]:
    """A model with the width, heads and side of open_clip's, but few blocks and a small vocabulary."""
    config = deepcopy(config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_name"] += "_shallow"
    else:
        vision["layers"] = [1, 1, 1, 1] if isinstance(vision["layers"], list) else 2
    text.update(layers=1, vocab_size=128)
    return config


@torch.no_grad()
def randomise(net: nn.Module, seed: int) -> None:
    """Gives every parameter and statistic a random value, at which attention is far from uniform."""
    chance = torch.Generator().manual_seed(seed)
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if not tensor.is_floating_point() or "mask" in name:
            continue
        noise = torch.randn(tensor.shape, generator=chance)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.dim() > 1 and "pos" not in name:
            tensor.copy_(noise * math.prod(tensor.shape[1:]) ** -0.5)
        elif name.endswith("weight") or "gamma" in name:
            tensor.copy_(1 + 0.1 * noise)
        else:
            tensor.copy_(noise if "pos" in name else 0.3 * noise)


def pixels(side: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def bicubic(grid: Tensor, side: int) -> Tensor:
    """(n, n, C) positions for a grid of another side, without antialiasing."""
    resized = F.interpolate(grid.permute(2, 0, 1)[None], size=(side, side), mode="bicubic")
    return resized[0].permute(1, 2, 0)


def square(positions: Tensor) -> Tensor:
    """(n*n, C) -> (n, n, C)."""
    return positions.unflatten(0, (math.isqrt(len(positions)),) * 2)


def differences(name: str, *, full: bool, scale: int) -> dict[str, float]:
    """The largest differences between our outputs and theirs, on unit embeddings.

    Args:
        name: A registered CLIP or VFM.
        full: Whether the network is whole; otherwise `shallow`.
        scale: Side of the image as a multiple of the native one.

    Returns:
        `image`, `text` and `dense` (of a VFM: `dense` alone) where the library has our positions, and `own
        positions`: `dense` where it has resized them itself, if it can.
    """
    return (_of_clip if name in CLIPS else _of_sam)(name, full=full, scale=scale)


@torch.inference_mode()
def _of_clip(name: str, *, full: bool, scale: int) -> dict[str, float]:
    arch = resolve(name)
    if not full:
        arch = replace(arch, config=shallow(arch.clip_config()))
    config = arch.clip_config()
    side = scale * config["vision_cfg"]["image_size"]
    ours = build(arch)
    randomise(ours.clip, seed=1)
    image = pixels(side)
    tokens = torch.randint(1, 100, (2, ours.clip.context_length), generator=torch.Generator().manual_seed(2))
    found = {}
    theirs = _library(ours, config, side, own=False)
    found["image"] = _apart(ours.encode_image(image), theirs.encode_image(image))
    found["text"] = _apart(ours.encode_text(tokens), theirs.encode_text(tokens))
    family = next(family for family in FAMILIES if type(ours) is FAMILIES[family])
    dense = ours.dense(image)
    found["dense"] = _apart(dense, DENSE[family](theirs.visual, image), dim=1)
    if scale > 1 and family in ("vit", "siglip"):
        theirs = _library(ours, config, side, own=True)
        found["own positions"] = _apart(dense, DENSE[family](theirs.visual, image), dim=1)
    return {what: float(each) for what, each in found.items()}


def _apart(a: Tensor, b: Tensor, dim: int = -1) -> Tensor:
    return (F.normalize(a, dim=dim) - F.normalize(b, dim=dim)).abs().max()


def _library(ours: DenseCLIP, config: dict[str, Any], side: int, *, own: bool) -> Any:
    """The library's network of our weights, for images of another side: by our positions or its own."""
    config = deepcopy(config)
    custom, vision = config.pop("custom_text", False), config["vision_cfg"]
    timms = "timm_model_name" in vision
    if not timms:
        vision["image_size"] = side
    theirs: Any = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).eval()
    state = {key: value.clone() for key, value in ours.clip.state_dict().items()}
    if timms:
        theirs.load_state_dict(state)
        trunk = theirs.visual.trunk
        if side != vision["image_size"] and hasattr(trunk, "pos_embed"):
            trunk.set_input_size((side, side))
            if not own:
                n = side // ours.patch_size
                trunk.pos_embed = nn.Parameter(
                    bicubic(square(state["visual.trunk.pos_embed"][0]), n).flatten(0, 1)[None]
                )
    else:
        if own:
            resize_pos_embed(state, theirs)
        else:
            key = next(k for k in state if k.startswith("visual.") and k.endswith("positional_embedding"))
            cls, n = state[key][:1], side // ours.patch_size
            state[key] = torch.cat([cls, bicubic(square(state[key][1:]), n).flatten(0, 1)])
        theirs.load_state_dict(state)
    return theirs


def _alone(n: int) -> Tensor:
    """An attention mask by which each of n tokens sees itself only."""
    return torch.full((n, n), -torch.inf).fill_diagonal_(0)


def _vit(visual: Any, image: Tensor) -> Tensor:
    last, n = visual.transformer.resblocks[-1], len(visual.positional_embedding)
    with _with_mask(last, _alone(n)), mock.patch.object(visual, "pool_type", "none"):
        return _to_map(visual(image)[:, 1:])


def _siglip(visual: Any, image: Tensor) -> Tensor:
    trunk = visual.trunk
    with _with_mask(trunk.blocks[-1], _alone(trunk.pos_embed.shape[1])):
        tokens = trunk.forward_features(image)
    # The pool sees one token at a time.
    return _to_map(visual.head(trunk.attn_pool(tokens.flatten(0, 1)[:, None])).unflatten(0, tokens.shape[:2]))


def _resnet(visual: Any, image: Tensor) -> Tensor:
    pooled, attend = [], F.multi_head_attention_forward

    def alone(query: Tensor, **options: Any) -> Any:
        pooled.append(attend(query, attn_mask=_alone(len(query)), **options)[0])
        return pooled[0], None

    with mock.patch.object(F, "multi_head_attention_forward", alone):
        visual(image)
    return _to_map(pooled[0][1:].transpose(0, 1))


def _convnext(visual: Any, image: Tensor) -> Tensor:
    """Each cell of the last stage as a map of its own."""
    features = visual.trunk.forward_features(image)
    cells = features.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]
    return _to_map(visual.head(visual.trunk.forward_head(cells)).unflatten(0, (len(image), -1)))


DENSE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "vit": _vit,
    "siglip": _siglip,
    "resnet": _resnet,
    "convnext": _convnext,
}


@contextmanager
def _with_mask(block: nn.Module, mask: Tensor) -> Iterator[None]:
    def masked(x: Tensor, *, attn_mask: None = None) -> Any:
        return type(block).forward(block, x, attn_mask=mask)

    with mock.patch.object(block, "forward", masked):
        yield


def _to_map(tokens: Tensor) -> Tensor:
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


@torch.inference_mode()
def _of_sam(name: str, *, full: bool, scale: int) -> dict[str, float]:
    """Segment Anything's encoder, for images of 256 px in place of 1024 unless it is whole."""
    arch = find_vfm(name)
    options = {} if full else {"img_size": 256, "depth": 2, "global_attn_indexes": (1,)}
    ours = build_vfm(replace(arch, options={**arch.options, **options}))
    randomise(ours.net, seed=1)
    net = timm.create_model(arch.timm, num_classes=0, **options).eval()
    net.load_state_dict(ours.net.state_dict())
    side = scale * net.patch_embed.img_size[0]
    image, found = pixels(side), {}
    tokens = ours(image)

    def apart() -> float:
        return float(_apart(tokens, net.forward_features(image), dim=1))

    if scale > 1:
        found["own positions"] = apart()
        net.pos_embed = nn.Parameter(bicubic(net.pos_embed[0], side // arch.patch)[None])
    return {"dense": apart(), **found}


if __name__ == "__main__":
    for name in NAMES:
        for scale in (1, 2):
            # 16,384 tokens of a whole SAM-L that attend to each other take 17 GB.
            if (name, scale) != ("sam-l", 2):
                found = differences(name, full=True, scale=scale)
                print(name, f"{scale} x", {what: f"{each:.0e}" for what, each in found.items()}, flush=True)
