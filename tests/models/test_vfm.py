import functools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from densecli.core.errors import DenseCLIError
from densecli.models.vfm import build_vfm
from densecli.models.vfm_checkpoints import load_vfm
from densecli.models.vfms import VFMS, find_vfm, is_vfm
from densecli.models.weights import find_weights


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


SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}


def small(name):
    """A network of timm's by its name, with random weights, of two blocks."""
    arch = find_vfm(f"timm/{name}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_vfm(replace(arch, options={**arch.options, **SMALL}))


@pytest.mark.parametrize(
    ("name", "patch", "mean"),
    [
        ("vit_base_patch14_reg4_dinov2.lvd142m", 14, 0.485),
        ("vit_base_patch14_reg4_dinov2", 14, 0.485),
        ("vit_small_patch16_dinov3.lvd1689m", 16, 0.485),
        ("samvit_large_patch16.sa1b", 16, 0.485),
        ("sam2_hiera_tiny.fb_r896", 16, 0.485),
        ("vit_base_patch16_radio_v3.c_radio", 16, 0.48145466),
        ("vit_base_patch16_siglip_224.webli", 16, 0.5),
    ],
)
def test_timm__a_name_without_an_entry_says_its_own_facts(name, patch, mean):
    arch = find_vfm(f"timm/{name}")
    assert is_vfm(f"timm/{name}") and arch.name == f"timm/{name}"
    assert (arch.patch, arch.mean[0]) == (patch, mean)
    with torch.device("meta"):
        tokens = build_vfm(arch)(torch.empty(1, 3, 4 * patch, 6 * patch))
    assert tokens.shape[2:] == (4, 6)


@pytest.mark.parametrize(
    "name", ["vit_base_patch16_radio_v3", "vit_base_patch16_siglip_224", "vit_small_patch14_reg4_dinov2"]
)
@torch.inference_mode()
def test_timm__tokens_are_the_networks_own_features(name):
    model = small(name)
    for scale in (1, 2):
        grid = [scale * side for side in model.net.patch_embed.grid_size]
        if scale == 2:
            # Equal positions: timm would resize others with antialiasing, which ours are without.
            own = 0 if model.net.no_embed_class else model.net.num_prefix_tokens
            model.net.pos_embed[:, own:] = 1.0
        images = square(model.arch.patch * grid[0])
        theirs = model.net.forward_features(images)[:, model.net.num_prefix_tokens :]
        expected = F.normalize(theirs, dim=2).transpose(1, 2).unflatten(2, grid)
        torch.testing.assert_close(model(images), expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_timm__rotary_positions_fit_any_grid():
    model = small("vit_small_patch16_dinov3")
    whole = square(96)
    for images in (whole, whole[:, :, :48]):
        grid = (images.shape[2] // 16, 6)
        (theirs,) = model.net.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        assert theirs.shape[2:] == grid
        torch.testing.assert_close(model(images), F.normalize(theirs, dim=1))


@torch.inference_mode()
def test_timm__sam2_is_the_stage_at_stride_16():
    arch = find_vfm("timm/sam2_hiera_tiny.fb_r896")
    model = build_vfm(replace(arch, options={"embed_dim": 24, "num_heads": 1, "stages": (1, 1, 2, 1)}))
    images = square(64)
    theirs = model.net.forward_intermediates(images, intermediates_only=True)[2]
    torch.testing.assert_close(model(images), F.normalize(theirs, dim=1))
    assert theirs.shape[2:] == (4, 4)
    unread = {name for name, _ in model.net.named_parameters() if name.startswith(model.unread())}
    assert {name.split(".")[1] for name in unread if name.startswith("blocks.")} == {"4"}
    with pytest.raises(DenseCLIError, match="multiples of 32 pixels, not 48 x 48"):
        model(square(48))


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "swin_tiny_patch4_window7_224"])
def test_timm__a_network_without_a_patch_grid_is_refused(name):
    with pytest.raises(DenseCLIError, match=f"timm/{name} is a .* no patch grid") as caught:
        find_vfm(f"timm/{name}")
    assert "timm/vit_base_patch14_dinov2.lvd142m" in caught.value.hint


def test_timm__a_network_that_is_a_plain_vit_too_is_named():
    with pytest.raises(DenseCLIError, match="NaFlexVit") as caught:
        find_vfm("timm/naflexvit_base_patch16_radio_v3")
    assert "timm/vit_base_patch16_radio_v3" in caught.value.hint
    find_vfm("timm/vit_base_patch16_radio_v3")


def test_timm__unknown_names_and_tags_suggest_the_nearest():
    with pytest.raises(DenseCLIError, match="vit_bse_patch16_224") as caught:
        find_vfm("timm/vit_bse_patch16_224")
    assert "vit_base_patch16_224" in caught.value.hint
    with pytest.raises(DenseCLIError, match="no weights tag") as caught:
        find_vfm("timm/vit_base_patch14_dinov2.lvd142n")
    assert "vit_base_patch14_dinov2.lvd142m" in caught.value.hint


def test_timm__weights_lie_under_a_name_without_slashes(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    name = "timm/vit_tiny_patch16_224.augreg_in21k"
    with pytest.raises(DenseCLIError, match=r"no timm--vit_tiny_patch16_224\.augreg_in21k\.safetensors"):
        find_weights(name)
    file = tmp_path / "timm--vit_tiny_patch16_224.augreg_in21k.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build_vfm(find_vfm(name)).net
    save_file({**net.state_dict(), "head.weight": torch.zeros(2, 192)}, file)
    assert find_weights(name) == str(file)
    loaded = load_vfm(name, str(file))
    torch.testing.assert_close(dict(loaded.net.state_dict()), dict(net.state_dict()))
