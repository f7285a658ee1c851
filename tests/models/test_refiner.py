"""The Refiner: what it begins as, what of it is trained, and that its file is that of one CLIP alone."""

import json

import pytest
import safetensors.torch
import torch

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.models.refiner import METADATA, RefinerShape, card_of, load_refiner, make_refiner
from densecli.models.registry import build, resolve

BOXES = torch.tensor([[0.0, 0.0, 0.5, 0.75], [0.25, 0.1, 1.0, 1.0], [0.4, 0.2, 0.9, 0.6]])
OWNER = torch.tensor([0, 1, 1])


@pytest.fixture(params=["eva", "vit"])
def clip(request, tiny):
    return tiny(request.param)


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


def test_refiner__of_one_block_begins_as_the_clip(clip, images) -> None:
    """The value path of a token reads nothing else: the region CLS has no say yet."""
    refiner = make_refiner(clip, RefinerShape(depth=1, layers=(1, 1), hidden=8))
    torch.testing.assert_close(refiner.dense(images), clip.dense(images), atol=1e-5, rtol=0)


def test_refiner__tokens_of_a_box_are_its_own(clip, images) -> None:
    refiner = make_refiner(clip, RefinerShape(depth=2, layers=(1, 1), hidden=8))
    tokens = refiner(images, BOXES, OWNER, 3)
    assert tokens.shape == (3, 9, clip.embed_dim)
    torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(3, 9))
    for i in range(3):
        alone = refiner(images, BOXES[i : i + 1], OWNER[i : i + 1], 3)
        torch.testing.assert_close(alone[0], tokens[i], atol=1e-5, rtol=0)


def test_refiner__trains_its_own_parts_alone(clip, images) -> None:
    refiner = make_refiner(clip, RefinerShape(depth=2, layers=(1, 1), hidden=8))
    frozen = refiner.frozen_names()
    unread = {name for name in frozen if not name.startswith("clip.")}
    # Open_clip's q, k and v are one parameter, of which v is read.
    of_eva = {f"blocks.1.attn.{x}" for x in ("q_proj.weight", "q_proj.bias", "k_proj.weight")}
    assert unread == (of_eva if clip.arch.family == "eva" else set())
    refiner(images, BOXES, OWNER, 3).square().mul(torch.randn(3, 9, clip.embed_dim)).sum().backward()
    for name, parameter in refiner.named_parameters():
        if name not in frozen:
            assert parameter.grad is not None and parameter.grad.any(), name
        elif not name.startswith("clip."):
            assert parameter.grad is None, name


def test_refiner__of_a_network_without_blocks(tiny) -> None:
    with pytest.raises(DenseCLIError, match="tiny-resnet has no transformer blocks"):
        make_refiner(tiny("resnet"))


@pytest.fixture
def file(tmp_path):
    clip, info = load_model("scenes-s", "random:0")
    refiner = make_refiner(clip)
    torch.nn.init.normal_(refiner.mix.weight)
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
    with pytest.raises(DenseCLIError, match="There is no Refiner"):
        load_refiner("scenes-s", "random:0", str(tmp_path / "nowhere.safetensors"))
