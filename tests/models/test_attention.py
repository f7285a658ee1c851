"""A walk through a ViT's blocks gives the attention that the blocks compute, and the tokens between them."""

import pytest
import torch

from densecli.models.attention import mean_attention
from densecli.models.student import DenseVFM, has_layers, load_student


def images(side: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_mean_attention__is_the_softmax_averaged_over_heads():
    q, k = torch.randn(2, 1, 3, 5, 4).unbind()
    expected = (q @ k.transpose(2, 3) / 2).softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(mean_attention(q, k), expected)


def of_timm(blocks) -> list[torch.Tensor]:
    """A list to which each block adds its own attention, averaged over heads, when it runs."""
    seen: list[torch.Tensor] = []
    for block in blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: seen.append(out.mean(dim=1)))
    return seen


@pytest.mark.parametrize("family", ["eva", "siglip"])
@torch.no_grad()
def test_walk__gives_the_attention_of_timms_blocks(tiny, family):
    model = tiny(family)
    seen = of_timm(model.blocks())
    found = list(model.walk(images()))
    assert len(found) == len(seen) == len(model.blocks())
    for layer, attention in zip(found, seen, strict=True):
        torch.testing.assert_close(layer.attention, attention)


@torch.no_grad()
def test_walk__gives_the_attention_of_open_clips_blocks(tiny):
    model = tiny("vit")
    before = []
    for block in model.blocks():
        block.ln_1.register_forward_hook(lambda _m, _i, out: before.append(out))
    found = list(model.walk(images()))
    # Each norm runs twice: for the weights, and in the block.
    for layer, block, x in zip(found, model.blocks(), before[::2], strict=True):
        _, expected = block.attn(x, x, x, need_weights=True, average_attn_weights=True)
        torch.testing.assert_close(layer.attention, expected)


@torch.no_grad()
def test_walk__gives_the_attention_of_a_vfm():
    model, _ = load_student("scenes-vfm")
    seen = of_timm(model.blocks())
    found = list(model.walk(images(96)))
    assert len(found) == len(seen) > 0
    for layer, attention in zip(found, seen, strict=True):
        torch.testing.assert_close(layer.attention, attention)


@pytest.mark.parametrize("family", ["eva", "vit", "siglip"])
@torch.no_grad()
def test_walk__tokens_are_those_of_layers(tiny, family):
    model = tiny(family)
    numbers = range(1, len(model.blocks()) + 1)
    for layer, expected in zip(model.walk(images()), model.layers(images(), numbers), strict=True):
        torch.testing.assert_close(layer.tokens, expected)


def test_has_layers__vits_alone(tiny):
    assert [has_layers(tiny(family)) for family in ("eva", "vit", "siglip")] == [True] * 3
    assert [has_layers(tiny(family)) for family in ("resnet", "convnext")] == [False] * 2
    vfm, _ = load_student("scenes-vfm")
    assert isinstance(vfm, DenseVFM) and has_layers(vfm)
