import functools

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from densecli.core.errors import DenseCLIError
from densecli.models.vfm import load_vfm
from densecli.models.vfms import VFMS


@pytest.fixture(scope="module")
def model_of():
    """Networks with the weights of random:0, each made once: a ViT-B takes seconds."""
    return functools.cache(lambda name: load_vfm(name, "random:0"))


def square(side):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["dinov2-vits14", "dinov2-vits14-reg"])
@torch.inference_mode()
def test_tokens__are_timms_patch_tokens_at_the_native_side(model_of, name):
    model = model_of(name)
    images = square(518)
    native = model.net.forward_features(images)[:, model.net.num_prefix_tokens :]
    expected = F.normalize(native, dim=2).transpose(1, 2).unflatten(2, (37, 37))
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(
    ("name", "side", "shape"),
    [
        ("dinov2-vits14", (112, 70), (1, 384, 8, 5)),
        ("dino-vitb16", (48, 64), (1, 768, 3, 4)),
        ("sam-b", (64, 64), (1, 256, 4, 4)),
    ],
)
@torch.inference_mode()
def test_tokens__of_any_grid_have_unit_norm(model_of, name, side, shape):
    tokens = model_of(name)(square(128)[:, :, : side[0], : side[1]])
    assert tokens.shape == shape
    torch.testing.assert_close(tokens.norm(dim=1), torch.ones(shape[0], *shape[2:]))


@pytest.mark.parametrize(("canvas", "side"), [(512, 448), (560, 490), (1024, 896), (896, 784)])
def test_input_side__gives_the_grid_of_a_student_of_patch_16(canvas, side):
    assert VFMS["dinov2-vitb14"].input_side(canvas, 16) == side
    assert VFMS["dino-vitb8"].input_side(canvas, 16) == canvas // 2


def test_prepare__each_network_has_its_own_mean(model_of):
    white = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    dino, sam = (model_of(name).prepare(white, 16) for name in ("dinov2-vits14", "sam-b"))
    assert dino[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)
    assert sam[0, 0, 0, 0].item() == pytest.approx((255 - 123.675) / 58.395, rel=1e-5)


def test_load__the_published_layouts(model_of, tmp_path):
    """facebookresearch/dinov2 adds CLS's position when it runs, and names the registers otherwise."""
    model = model_of("dinov2-vits14-reg")
    state = dict(model.net.state_dict())
    position = torch.randn(1, 1, 384)
    published = {
        **{key: value for key, value in state.items() if key not in ("reg_token", "cls_token", "pos_embed")},
        "register_tokens": state["reg_token"],
        "cls_token": state["cls_token"] - position,
        "pos_embed": torch.cat([position, state["pos_embed"]], dim=1),
        "mask_token": torch.zeros(1, 384),
    }
    save_file(published, tmp_path / "dinov2.safetensors")
    loaded = load_vfm("dinov2-vits14-reg", str(tmp_path / "dinov2.safetensors"))
    torch.testing.assert_close(dict(loaded.net.state_dict()), state)


def test_load__segment_anything_without_its_decoder(model_of, tmp_path):
    model = model_of("sam-b")
    state = {k: v.contiguous() for k, v in model.net.state_dict().items()}
    published = {f"image_encoder.{k.replace('mlp.fc', 'mlp.lin')}": v for k, v in state.items()}
    save_file(
        published | {"mask_decoder.iou_token.weight": torch.zeros(1, 256)}, tmp_path / "sam.safetensors"
    )
    loaded = load_vfm("sam-b", str(tmp_path / "sam.safetensors"))
    torch.testing.assert_close(dict(loaded.net.state_dict()), dict(model.net.state_dict()))


def test_load__is_strict(model_of, tmp_path):
    state = {k: v for k, v in model_of("dinov2-vits14").net.state_dict().items() if k != "norm.bias"}
    save_file({**state, "head.weight": torch.zeros(3)}, tmp_path / "wrong.safetensors")
    with pytest.raises(DenseCLIError, match=r"1 missing \(norm.bias\); 1 unexpected \(head.weight\)"):
        load_vfm("dinov2-vits14", str(tmp_path / "wrong.safetensors"))
    with pytest.raises(DenseCLIError, match="dinov2-vitl14-rex") as caught:
        load_vfm("dinov2-vitl14-rex", "random:0")
    assert "dinov2-vitl14-reg" in caught.value.hint


def test_load__the_real_dinov2(shared_data):
    model = load_vfm("dinov2-vits14", str(shared_data / "weights" / "dinov2_vits14_fp16.safetensors"))
    assert torch.isfinite(model(square(112))).all()
