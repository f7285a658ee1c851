"""Models of open_clip by their names there."""

import open_clip
import pytest
import torch
from torch import nn

from densecli.core.errors import DenseCLIError
from densecli.models.open_clip_models import from_open_clip
from densecli.models.registry import FAMILIES, build, resolve


def images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "family", "size", "mean"),
    [
        ("ViT-L-14", "vit", "large", 0.48145466),
        ("ViT-B-16-SigLIP2", "siglip", "base", 0.5),
        ("ViT-L-16-SigLIP-256", "siglip", "large", 0.5),
        ("convnext_large_d_320", "convnext", "", 0.48145466),
        ("RN50x4-quickgelu", "resnet", "", 0.48145466),
        ("EVA02-L-14", "eva", "large", 0.48145466),
    ],
)
def test_resolve__the_family_is_found_in_the_configuration(name, family, size, mean) -> None:
    arch = resolve(f"open_clip/{name}")
    assert (arch.name, arch.config, arch.family, arch.size) == (f"open_clip/{name}", name, family, size)
    assert arch.mean[0] == mean
    assert arch.native_side == open_clip.get_model_config(name)["vision_cfg"]["image_size"]


@pytest.mark.parametrize("name", ["ViT-S-32-alt", "RN50x4", "ViT-B-32-SigLIP2-256", "convnext_tiny"])
def test_build__reads_what_open_clip_builds(name) -> None:
    arch = resolve(f"open_clip/{name}")
    with torch.device("meta"):
        model = build(arch)
        dense = model(torch.empty(1, 3, 2 * model.patch_size, 3 * model.patch_size))
        theirs = open_clip.create_model(name, load_weights=False, device="meta").state_dict()
    assert isinstance(model, FAMILIES[arch.family]) and dense.shape == (1, model.embed_dim, 2, 3)
    assert {key: t.shape for key, t in model.clip.state_dict().items()} == {
        k: t.shape for k, t in theirs.items()
    }


@pytest.mark.parametrize(
    "name",
    ["coca_ViT-B-32", "MobileCLIP-S1", "ViTamin-L", "ViT-L-14-CLIPA", "PE-Core-B-16", "EVA01-g-14",
     "roberta-ViT-B-32", "nllb-clip-base-siglip", "swin_base_patch4_window7_224"],
)  # fmt: skip
def test_resolve__other_families_are_refused(name) -> None:
    with pytest.raises(DenseCLIError, match=f"The family of open_clip/{name} cannot") as caught:
        from_open_clip(f"open_clip/{name}")
    assert "SigLIP" in caught.value.hint and "ConvNeXt" in caught.value.hint


def test_resolve__an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(DenseCLIError, match="no model in open_clip called 'ViT-B-15'") as caught:
        resolve("open_clip/ViT-B-15")
    assert "ViT-B-16" in caught.value.hint


@torch.no_grad()
def test_siglip__one_token_is_the_image_embedding(tiny) -> None:
    """The pool can attend to that token alone, and the block's own attention too."""
    model, one = tiny("siglip"), images(16, 16)
    torch.testing.assert_close(model(one, "maskclip")[:, :, 0, 0], model.encode_image(one))
    torch.testing.assert_close(model(one, "vanilla")[:, :, 0, 0], model.encode_image(one))


@torch.no_grad()
def test_siglip__the_image_embedding_of_another_side_is_timms(tiny) -> None:
    """With the same position everywhere, antialiasing says nothing."""
    model = tiny("siglip")
    trunk = model.clip.visual.trunk
    trunk.pos_embed[:] = trunk.pos_embed[:, :1]
    trunk.patch_embed.strict_img_size = False
    trunk.patch_embed.flatten, trunk.dynamic_img_size = False, True
    trunk.patch_embed.output_fmt = type(trunk.patch_embed.output_fmt).NHWC
    torch.testing.assert_close(model.encode_image(images(128, 128)), trunk(images(128, 128)))


@torch.no_grad()
def test_siglip__a_maps_tokens_are_the_last_blocks_values_through_the_pool(tiny) -> None:
    model = tiny("siglip")
    trunk = model.clip.visual.trunk
    last, pool, size = trunk.blocks[-1], trunk.attn_pool, model.width
    x, _ = model._embed(images())
    x = trunk.blocks[0](x)
    x = x + last.attn.proj(last.attn.qkv(last.norm1(x))[..., 2 * size :])
    x = trunk.norm(x + last.mlp(last.norm2(x)))
    x = pool.proj(pool.kv(x)[..., size:])
    x = x + pool.mlp(pool.norm(x))
    expected = nn.functional.normalize(x, dim=-1).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(model(images()), expected)


@torch.no_grad()
def test_siglip__texts_are_read_whole(tiny) -> None:
    model = tiny("siglip")
    tokens = torch.randint(1, 60, (3, 16), generator=torch.Generator().manual_seed(0))
    tokens[:, 4:] = 1
    torch.testing.assert_close(model.encode_text(tokens), model.clip.encode_text(tokens))


def test_tokenizer__one_that_is_not_here_points_to_text_embeddings(monkeypatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", offline)
    with pytest.raises(
        DenseCLIError, match="siglip2-b16 needs the tokenizer timm/ViT-B-16-SigLIP2"
    ) as caught:
        resolve("siglip2-b16").make_tokenizer()
    assert "--text-embeddings FILE" in caught.value.hint
