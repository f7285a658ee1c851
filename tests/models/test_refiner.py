"""The Refiner: what it begins as, what of it is trained, and that its file is that of one CLIP alone."""

import json

import pytest
import safetensors.torch
import torch

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model, seeded
from densecli.models.pooling import region_tokens
from densecli.models.refiner import RefinerShape, make_refiner, starting_blocks
from densecli.models.refiner_checkpoints import METADATA, card_of, load_refiner
from densecli.models.registry import build, resolve
from densecli.models.student import DenseVFM
from densecli.models.vfm import build_vfm
from densecli.models.vfm_architecture import VFMArchitecture

BOXES = torch.tensor([[0.0, 0.0, 0.5, 0.75], [0.25, 0.1, 1.0, 1.0], [0.4, 0.2, 0.9, 0.6]])
OWNER = torch.tensor([0, 1, 1])


def tiny_vfm(**options) -> DenseVFM:
    options = {
        "img_size": 64,
        "embed_dim": 64,
        "depth": 2,
        "num_heads": 2,
        "dynamic_img_size": True,
        **options,
    }
    torch.manual_seed(0)
    return DenseVFM(
        build_vfm(VFMArchitecture(name="v", timm="vit_tiny_patch16_224", patch=16, options=options))
    )


@pytest.fixture(params=["eva", "vit", "vfm", "registers"])
def clip(request, tiny):
    """A network of two blocks that a Refiner can be made of."""
    if request.param in ("vfm", "registers"):
        registers = {"reg_tokens": 2, "no_embed_class": True} if request.param == "registers" else {}
        return tiny_vfm(**registers)
    return tiny(request.param)


def width_of_tokens(network) -> int:
    return network.width if isinstance(network, DenseVFM) else network.embed_dim


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_shape__the_papers_for_b_and_l_and_half_of_others() -> None:
    shapes = {}
    for name in ("eva02-b16", "vit-b16", "eva02-l14-336", "scenes-s", "scenes-l"):
        with torch.device("meta"):
            shapes[name] = RefinerShape.of(build(resolve(name)))
    base = RefinerShape(depth=4, layers=(4, 7), hidden=4096)
    assert shapes["eva02-b16"] == shapes["vit-b16"] == base
    assert shapes["eva02-l14-336"] == RefinerShape(depth=6, layers=(9, 14), hidden=4096)
    assert shapes["scenes-s"] == RefinerShape(depth=2, layers=(1, 2), hidden=512)
    assert shapes["scenes-l"] == RefinerShape(depth=2, layers=(2, 3), hidden=768)


def test_refiner__of_one_block_begins_as_the_clip(tiny, images) -> None:
    """The value path of a token reads nothing else: the region CLS has no say yet."""
    for family in ("eva", "vit"):
        clip = tiny(family)
        refiner = make_refiner(clip, RefinerShape(depth=1, layers=(1, 1), hidden=8))
        torch.testing.assert_close(refiner.dense(images), clip.dense(images), atol=1e-5, rtol=0)


def test_refiner__tokens_of_a_box_are_its_own(clip, images) -> None:
    refiner = make_refiner(clip, RefinerShape(depth=2, layers=(1, 1), hidden=8))
    tokens = refiner(images, BOXES, OWNER, 3)
    assert tokens.shape == (3, 9, width_of_tokens(clip))
    torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(3, 9))
    for i in range(3):
        alone = refiner(images, BOXES[i : i + 1], OWNER[i : i + 1], 3)
        torch.testing.assert_close(alone[0], tokens[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("parts", [{}, {"fc_inter": False}, {"fc_cls": False}, {"exogenous": True}])
def test_refiner__trains_its_own_parts_alone(clip, images, parts) -> None:
    refiner = make_refiner(clip, RefinerShape(depth=2, layers=(1, 1), hidden=8, **parts))
    if refiner.fc_inter is not None:
        torch.nn.init.normal_(refiner.fc_inter[-1].weight, std=0.1)
    frozen = refiner.frozen_names()
    unread = {name for name in frozen if not name.startswith("encoder.")}
    # Open_clip's q, k and v are one parameter, of which v is read; a VFM's last block runs as it is.
    of_eva = {f"blocks.1.attn.{x}" for x in ("q_proj.weight", "q_proj.bias", "k_proj.weight")}
    assert unread == (of_eva if getattr(clip.arch, "family", "") == "eva" else set())
    weights = torch.randn(3, 9, width_of_tokens(clip), generator=torch.Generator().manual_seed(0))
    refiner(images, BOXES, OWNER, 3).square().mul(weights).sum().backward()
    for name, parameter in refiner.named_parameters():
        if name not in frozen:
            assert parameter.grad is not None and parameter.grad.any(), name
        elif not name.startswith("encoder."):
            assert parameter.grad is None, name
    assert ("fc_inter.0.weight" in refiner.own_state()) == parts.get("fc_inter", True)
    assert ("fc_cls.0.weight" in refiner.own_state()) == parts.get("fc_cls", True)


def two_layers(mlp: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    state = mlp.state_dict()
    hidden = torch.nn.functional.gelu(x @ state["0.weight"].T + state["0.bias"])
    return hidden @ state["2.weight"].T + state["2.bias"]


@pytest.mark.parametrize(("fc_inter", "fc_cls"), [(True, True), (True, False), (False, True), (False, False)])
def test_refiner__equals_a_reference_from_scratch(tiny, images, fc_inter, fc_cls) -> None:
    """Eqs 10 and 11. A box of whole tokens: RoIAlign to as many gives them, to one their mean."""
    clip = tiny("vit")
    shape = RefinerShape(depth=2, layers=(0, 1), hidden=10, fc_inter=fc_inter, fc_cls=fc_cls)
    refiner = make_refiner(clip, shape)
    for mlp in filter(None, (refiner.fc_inter, refiner.fc_cls)):
        assert [tuple(p.shape) for p in (mlp[0].weight, mlp[2].weight)] == [
            (10, 128 if mlp is refiner.fc_inter else 64),
            (64, 10),
        ]
        for parameter in mlp.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    entered = []
    for block in clip.blocks():
        block.register_forward_pre_hook(lambda _, args: entered.append(args[0].detach()))
    with torch.no_grad():
        clip.dense(images, "vanilla")
        layers = [x[:, 1:].unflatten(1, (4, 4)) for x in entered]
        f_a = layers[0]
        mixed = f_a + (two_layers(refiner.fc_inter, torch.cat(layers, dim=-1)) if fc_inter else 0)
        region = (slice(2, 4), slice(1, 3))
        tokens = mixed[1][region].flatten(0, 1)
        pooled = f_a[1][region].mean(dim=(0, 1))
        cls = two_layers(refiner.fc_cls, pooled) if fc_cls else pooled
        first, last = refiner.blocks
        x = first(torch.cat([cls[None], tokens])[None])
        weight, bias = last.attn.in_proj_weight[128:], last.attn.in_proj_bias[128:]
        x = x + last.attn.out_proj(last.ln_1(x) @ weight.T + bias)
        x = x + last.mlp(last.ln_2(x))
        visual = clip.clip.visual
        expected = torch.nn.functional.normalize((visual.ln_post(x) @ visual.proj)[0, 1:], dim=-1)
        found = refiner(images, torch.tensor([[0.25, 0.5, 0.75, 1.0]]), torch.tensor([1]), 2)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)


def test_refiner__of_a_vfm_equals_a_reference_from_scratch(images) -> None:
    vfm = tiny_vfm(reg_tokens=2, no_embed_class=True)
    refiner = make_refiner(vfm, RefinerShape(depth=1, layers=(0, 1), hidden=10))
    entered, net = [], vfm.network
    net.blocks[1].register_forward_pre_hook(lambda _, args: entered.append(args[0].detach()))
    with torch.no_grad():
        vfm(images)
        [x] = entered
        f_a = x[:, 3:].unflatten(1, (4, 4))
        cls = two_layers(refiner.fc_cls, f_a[0, :2, :2].mean(dim=(0, 1)))
        tokens = torch.cat([cls[None], f_a[0, :2, :2].flatten(0, 1)])[None]
        expected = torch.nn.functional.normalize(net.norm(net.blocks[1](tokens))[0, 1:], dim=-1)
        found = refiner(images, torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([0]), 2)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)


def test_late__takes_the_regions_of_the_whole_images_map(clip, images) -> None:
    """Eq. 12: RoIAlign of what the Refiner makes of all tokens, so that a region sees what is around it."""
    shapes = [RefinerShape(depth=2, layers=(1, 1), hidden=8, late=late) for late in (False, True)]
    early, late = (seeded(lambda shape=shape: make_refiner(clip, shape), 0) for shape in shapes)
    with torch.no_grad():
        tokens = late(images, BOXES, OWNER, 3)
        whole = early.dense(images)
        expected = torch.nn.functional.normalize(region_tokens(whole, BOXES, OWNER, 3), dim=2)
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
        changed = images.clone()
        changed[0, :, 48:, 48:] *= 100  # outside the first box
        # No block runs before the Refiner's two.
        off = [
            (refiner(changed, BOXES[:1], OWNER[:1], 3) - refiner(images, BOXES[:1], OWNER[:1], 3)).abs().max()
            for refiner in (early, late)
        ]
        assert off[0] < 1e-6 < 1e-5 < off[1]


def test_pacl__is_a_residual_block_for_each_token_of_the_dense_map(clip, images) -> None:
    shape = RefinerShape(depth=1, layers=(1, 1), hidden=8, pacl=True)
    refiner = seeded(lambda: make_refiner(clip, shape), 0)
    with torch.no_grad():
        dense = clip.dense(images)
        torch.testing.assert_close(refiner.dense(images), dense, atol=1e-5, rtol=0)
        for parameter in refiner.embedder.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        w = refiner.embedder.state_dict()
        x = region_tokens(dense, BOXES, OWNER, 3)
        hidden = (x @ w["mlp.0.weight"].T + w["mlp.0.bias"]).clamp(min=0)
        y = x @ w["skip.weight"].T + w["skip.bias"] + hidden @ w["mlp.2.weight"].T + w["mlp.2.bias"]
        expected = torch.nn.functional.normalize(y, dim=2)
        torch.testing.assert_close(refiner(images, BOXES, OWNER, 3), expected, atol=1e-5, rtol=0)
    trained = {name for name, _ in refiner.named_parameters()} - refiner.frozen_names()
    assert trained == {f"embedder.{name}" for name in w}


def test_start__blocks_of_another_model(tiny) -> None:
    clip = tiny("vit")
    own = clip.blocks()[-1:].state_dict()
    assert starting_blocks(clip, 1, "own") is None
    assert starting_blocks(clip, 1, "pacl") is None
    for start in ("random", "exogenous"):
        blocks = starting_blocks(clip, 1, start).state_dict()
        assert {name: t.shape for name, t in blocks.items()} == {name: t.shape for name, t in own.items()}
        assert not torch.equal(blocks["0.mlp.c_fc.weight"], own["0.mlp.c_fc.weight"])
    other, _ = load_model("scenes-s", "random:1")
    student, _ = load_model("scenes-s", "random:0")
    found = starting_blocks(student, 2, "scenes-s=random:1").state_dict()
    assert all(torch.equal(t, other.blocks()[-2:].state_dict()[name]) for name, t in found.items())
    with pytest.raises(
        DenseCLIError, match="blocks of scenes-l are not of the kind and size of those of scenes-s"
    ):
        starting_blocks(student, 2, "scenes-l=random:0")


def test_refiner__of_a_network_without_blocks(tiny) -> None:
    with pytest.raises(DenseCLIError, match="tiny-resnet has no transformer blocks"):
        make_refiner(tiny("resnet"))


@pytest.fixture
def file(tmp_path):
    clip, info = load_model("scenes-s", "random:0")
    refiner = make_refiner(clip)
    torch.nn.init.normal_(refiner.fc_inter[-1].weight)
    path = tmp_path / "refiner.safetensors"
    metadata = {METADATA: json.dumps(card_of(refiner, info))}
    safetensors.torch.save_file(refiner.own_state(), path, metadata=metadata)
    return path, refiner


def test_load__gives_what_was_saved(file) -> None:
    path, refiner = file
    images = torch.randn(2, 3, 96, 96)
    loaded = load_refiner("scenes-s", "random:0", str(path))
    assert loaded.shape == refiner.shape
    torch.testing.assert_close(loaded(images, BOXES, OWNER, 4), refiner(images, BOXES, OWNER, 4))


def test_load__refuses_another_clip_and_other_files(file, tmp_path) -> None:
    path, _ = file
    with pytest.raises(DenseCLIError, match="was trained with other weights of scenes-s than random:1"):
        load_refiner("scenes-s", "random:1", str(path))
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(DenseCLIError, match="is not a Refiner"):
        load_refiner("scenes-s", "random:0", str(other))
    card = {"clip": "0" * 64, "architecture": "scenes-s", "depth": 2, "layers": [1, 2], "hidden": 512}
    safetensors.torch.save_file({"mix.weight": torch.zeros(1)}, other, metadata={METADATA: json.dumps(card)})
    with pytest.raises(DenseCLIError, match="is of version 1, not 2: in version 1, FC_Inter") as caught:
        load_refiner("scenes-s", "random:0", str(other))
    assert "train-refiner" in caught.value.hint
    with pytest.raises(DenseCLIError, match="There is no Refiner"):
        load_refiner("scenes-s", "random:0", str(tmp_path / "nowhere.safetensors"))
