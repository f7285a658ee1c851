import re

import pytest
import torch
from torch import nn

from densecli.core.errors import DenseCLIError
from densecli.models.dense import resize_positions
from densecli.models.registry import build, resolve


def images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_dense__any_side_that_is_a_multiple_of_the_patch(model) -> None:
    dense = model(images(64, 128))
    assert dense.shape == (2, 32, 64 // model.patch_size, 128 // model.patch_size)
    torch.testing.assert_close(dense.norm(dim=1), torch.ones_like(dense[:, 0]))
    assert model.encode_image(images(64, 128)).shape == (2, model.embed_dim)


@torch.no_grad()
def test_encode_image__is_the_librarys_at_the_native_side(model) -> None:
    torch.testing.assert_close(model.encode_image(images()), model.clip.encode_image(images()))


@torch.no_grad()
def test_dense__maskclip_is_value_before_normalisation(model) -> None:
    raw = model(images(), "maskclip")
    torch.testing.assert_close(nn.functional.normalize(raw, dim=1), model(images(), "value"))


@torch.no_grad()
def test_dense__one_convnext_cell_is_the_image_embedding(tiny) -> None:
    model, one_cell = tiny("convnext"), images(32, 32)
    torch.testing.assert_close(model(one_cell, "maskclip")[:, :, 0, 0], model.encode_image(one_cell))


def test_dense__an_unknown_mode_lists_the_known_ones(tiny) -> None:
    with pytest.raises(DenseCLIError, match="no dense mode 'qq'") as error:
        tiny("resnet")(images(), "qq")
    assert "maskclip" in error.value.hint


@pytest.mark.parametrize("mode", ["value+scale", "qq+scal", "qq+", "maskclip+unit"])
def test_dense__an_unknown_option_lists_the_known_ones(tiny, mode: str) -> None:
    with pytest.raises(DenseCLIError, match=re.escape(repr(mode))) as error:
        tiny("eva")(images(), mode)
    assert "qq, kk, vv, csa, all may be followed by +rope, +scale, +unit" in error.value.hint


@torch.no_grad()
def test_dense__scale_and_rope_are_the_blocks_own_attention(tiny) -> None:
    """With the query's weights for its keys, a block's own attention is the query's with itself."""
    model = tiny("eva")
    last = model.blocks()[-1]
    last.attn.k_proj.weight.copy_(last.attn.q_proj.weight)
    last.attn.q_proj.bias.zero_()
    ours = {mode: model(images(), mode) for mode in ("qq", "qq+scale", "qq+rope", "qq+scale+rope")}
    x, grid = model._embed(images())
    rope = model.rope(grid)
    for block in model.blocks()[:-1]:
        x = block(x, rope=rope)
    own = model._head(last.attn(last.norm1(x), rope=rope))[:, 1:].transpose(1, 2).unflatten(2, grid)
    for mode, dense in ours.items():
        same = torch.allclose(dense, own, atol=1e-5)
        assert same == (mode == "qq+scale+rope"), mode


@torch.no_grad()
def test_dense__unit_is_normalisation_alone(tiny) -> None:
    model = tiny("vit")
    raw = nn.functional.normalize(model(images(), "csa+scale"), dim=1)
    torch.testing.assert_close(model(images(), "csa+scale+unit"), raw)


@pytest.mark.parametrize("family", ["eva", "vit"])
@pytest.mark.parametrize("mode", ["value", "vanilla", "qq", "kk", "vv", "csa", "all"])
def test_frozen_names__every_other_parameter_gets_a_gradient(tiny, family: str, mode: str) -> None:
    model = tiny(family).train()
    frozen = model.frozen_names(mode)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    dense = model(images(), mode)
    (dense * torch.randn_like(dense)).sum().backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not without
    assert {name for name, p in model.named_parameters() if p.grad is not None} >= {
        name for name, _ in model.named_parameters() if "blocks.0." in name and "visual" in name
    }


def test_frozen_names__value_mode_leaves_no_parameter_without_gradient(model) -> None:
    frozen = model.frozen_names()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    dense = model.train()(images())
    (dense * torch.randn_like(dense)).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith("clip.visual.") for name in trained)


@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        (
            "eva",
            "trunk.patch_embed.proj.weight trunk.cls_token trunk.pos_embed trunk.norm.bias trunk.head.bias",
        ),
        ("vit", "conv1.weight class_embedding positional_embedding ln_post.bias proj"),
    ],
)
def test_frozen_names__are_the_published_ones(tiny, family: str, frozen: str) -> None:
    names = tiny(family).frozen_names()
    assert {f"clip.visual.{part}" for part in frozen.split()} | {"clip.logit_scale"} <= names
    assert not any(".blocks.0." in name and "visual" in name for name in names)


def test_train__batch_statistics_stay(tiny) -> None:
    model = tiny("resnet").train()
    before = model.clip.visual.bn1.running_mean.clone()
    model(images())
    assert torch.equal(model.clip.visual.bn1.running_mean, before)


def test_activation_checkpointing__same_gradients(model) -> None:
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model.activation_checkpointing = checkpointing
        model.zero_grad()
        model(images(), "maskclip").square().mean().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


@torch.no_grad()
def test_dense__bf16_autocast_stays_near(model) -> None:
    exact = model(images())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(images())
    assert rounded.dtype == torch.float32
    assert (exact * rounded).sum(dim=1).min() > 0.99


@pytest.mark.parametrize("mode", ["value", "csa"])
@torch.no_grad()
def test_dense__compiles_as_one_graph(tiny, mode: str) -> None:
    model = tiny("eva")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images(96, 64), mode), model(images(96, 64), mode))


def test_prepare__resamples_a_canvas_to_the_nearest_multiple_of_the_patch(tiny) -> None:
    model = tiny("vit")
    model.patch_size = 14
    canvas = torch.full((1, 3, 512, 512), 128, dtype=torch.uint8)
    assert model.input_side(512) == 518
    resampled, released = model.prepare(canvas), model.prepare(canvas, resample=False)
    assert model.prepare(canvas, side=64).shape[-1] == model.input_side(64) != resampled.shape[-1]
    assert resampled.shape[-2:] == (518, 518) and released.shape[-2:] == (512, 512)
    expected = (128 / 255 - torch.tensor(model.mean)) / torch.tensor(model.std)
    for x in (resampled, released):
        torch.testing.assert_close(x[0, :, 100, 200], expected)


def test_prepare__corners_of_the_canvas_stay_its_corners(tiny) -> None:
    model = tiny("vit")
    ramp = torch.linspace(0, 255, 60).expand(1, 3, 60, 60)  # 60 -> 64 at patch 16
    x = model.prepare(ramp) * model._std + model._mean
    just_right_of_the_middle = torch.tensor(127.5 + 255 / 59 * 60 / 64 / 2)
    torch.testing.assert_close(x[0, 0, 32, 32], just_right_of_the_middle, atol=0.1, rtol=0)


def test_resize_positions__cls_stays_and_the_native_grid_is_untouched() -> None:
    positions = torch.randn(1 + 16, 8)
    assert resize_positions(positions, (4, 4)) is positions
    larger = resize_positions(positions, (6, 9))
    assert larger.shape == (1 + 54, 8)
    assert torch.equal(larger[0], positions[0])


@torch.no_grad()
def test_scenes__student_and_teacher_speak_the_worlds_words() -> None:
    model = build(resolve("scenes-s"))
    assert model(torch.zeros(1, 3, 192, 96)).shape == (1, model.embed_dim, 16, 8)
    assert model.encode_text(model.tokenize(["a photo of a boat", "water"])).shape == (2, model.embed_dim)


def test_resolve__aliases_and_unknown_names() -> None:
    assert resolve("vitl14").name == "eva02-l14-336"
    with pytest.raises(DenseCLIError, match="no model called 'vit-z99'") as error:
        resolve("vit-z99")
    assert "eva02-b16" in error.value.hint and "vitl14" in error.value.hint


@pytest.mark.parametrize("mode", ["value", "qq+scale", "csa", "vanilla"])
def test_dense_context_image__is_dense_context_and_encode_image(model, mode):
    if not model.has_mode(mode):
        mode = "value"
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dense, context, image = model(images, mode, image=True)
        expected, features = model.dense_and_context(images, mode)
        torch.testing.assert_close(image, model.encode_image(images))
    torch.testing.assert_close(dense, expected)
    assert context.keys() == features.keys()
    for name, feature in features.items():
        torch.testing.assert_close(context[name], feature)
