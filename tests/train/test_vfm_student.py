"""A vision foundation model as the student of `spatial` alone."""

import json
from pathlib import Path

import pytest
import torch
from registries import put
from safetensors.torch import load_file
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.models.refiner_checkpoints import load_refiner
from densecli.models.student import load_student
from densecli.models.vfm_architecture import VFMArchitecture
from densecli.models.vfm_checkpoints import load_vfm
from densecli.models.vfms import VFMS
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.refiner import train_refiner
from densecli.train.refiner_config import RefinerConfig

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_vit(request, monkeypatch) -> None:
    """A ViT-S says nothing here that a ViT-Ti does not; but for real weights."""
    if "shared_data" not in request.fixturenames:
        small = VFMArchitecture(name="dinov2-vits14", timm="vit_tiny_patch16_224", patch=16)
        put(monkeypatch, VFMS, "dinov2-vits14", small)


def config(store, run: Path, **settings) -> TrainConfig:
    asked = {"teachers": ("refiner-scenes-s",)} if settings.get("method") == "r-sc-v" else {}
    defaults = {"student": "dinov2-vits14", "max_steps": 2, "spatial_side": 3, **asked}
    return TrainConfig(**run_settings(store.root, run, **{**defaults, **settings}))


@pytest.mark.parametrize("settings", [{"method": "r-sc-v"}, {"losses": {"spatial:gram": 1.0}}])
def test_train__every_block_moves_and_no_other_part(full_store, tmp_path, settings) -> None:
    initial, _ = load_student("dinov2-vits14", "random:0")
    result = train(config(full_store.store, tmp_path, **settings))
    assert result["loss"] > 0 and result["random_weights"]
    exported = load_file(result["export"])
    before = initial.network.state_dict()
    assert exported.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], exported[name])}
    assert moved == {name for name in before if name.startswith("blocks.")}


def test_export__is_a_student_again_and_a_teacher(full_store, tmp_path) -> None:
    result = train(config(full_store.store, tmp_path, method="r-sc-v", max_steps=1))
    again, info = load_student("dinov2-vits14", result["export"])
    assert info.source == result["export"] and not info.random
    assert (
        load_vfm("dinov2-vits14", result["export"]).net.state_dict().keys()
        == load_file(result["export"]).keys()
    )
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    tokens = again(again.prepare(images))
    assert tokens.shape == (1, 192, 6, 6)
    torch.testing.assert_close(tokens.norm(dim=1), torch.ones(1, 6, 6))


@pytest.mark.parametrize("method", ["densevlm", "regiontext", "sc-regiontext"])
def test_train__labels_need_texts(full_store, tmp_path, method: str) -> None:
    with pytest.raises(DenseCLIError, match="dinov2-vits14 has no text tower") as caught:
        make_trainer(config(full_store.store, tmp_path, method=method))
    assert "r-sc-v" in caught.value.hint


def test_train__another_mode(full_store, tmp_path) -> None:
    with pytest.raises(DenseCLIError, match="no dense mode 'qq'"):
        train(config(full_store.store, tmp_path, method="r-sc-v", mode="qq"))


def test_train__names_its_own_refiner(full_store, tiny_store, tmp_path) -> None:
    with pytest.raises(DenseCLIError, match="no refined column") as caught:
        make_trainer(config(tiny_store.store, tmp_path, method="r-sc-v", teachers=()))
    train_own, build = caught.value.commands
    assert "train-refiner --student dinov2-vits14" in train_own
    assert "build-shards --teacher refiner-dinov2-vits14" in build
    with pytest.raises(DenseCLIError, match="no gram column") as caught:
        make_trainer(config(tiny_store.store, tmp_path, losses={"spatial:gram": 1.0}))
    assert "--student-patch 16" in caught.value.commands[0]
    sentence = "refiner-scenes-s is of the Refiner of the CLIP scenes-s, not of dinov2-vits14"
    with pytest.raises(DenseCLIError, match=sentence) as caught:
        make_trainer(config(full_store.store, tmp_path, method="r-sc-v", teachers=()))
    assert "train-refiner --student dinov2-vits14" in caught.value.commands[0]
    assert "--teacher refiner-scenes-s" in caught.value.hint


def test_refiner__of_a_vfm_is_trained_and_read_again(tiny_store, tmp_path) -> None:
    """No text anywhere."""
    words = run_settings(tiny_store.store.root, tmp_path / "refiner", student="dinov2-vits14")
    settings = {"max_steps": 2, "crops": 1, "tokens": 2, "batch_size": 2}
    result = train_refiner(RefinerConfig(**{**words, **settings}))
    assert result["loss"] > 0
    card = json.loads((tmp_path / "refiner" / "export" / "card.json").read_text())
    assert (card["architecture"], card["depth"], card["layers"]) == ("dinov2-vits14", 4, [4, 7])
    refiner = load_refiner("dinov2-vits14", "random:0", result["export"])
    images = refiner.encoder.prepare(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    tokens = refiner(images, torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([0]), 2)
    assert tokens.shape == (1, 4, 192)


def test_real_dinov2__learns_from_a_store(full_store, shared_data, tmp_path) -> None:
    weights = str(shared_data / "weights" / "dinov2_vits14_fp16.safetensors")
    result = train(config(full_store.store, tmp_path, weights=weights, method="r-sc-v", lr=1e-4, max_steps=6))
    assert len(rows(tmp_path)) == 6 and not result["random_weights"]


def test_train__activation_checkpointing_moves_no_gradient() -> None:
    student, _ = load_student("dinov2-vits14", "random:0")
    images = student.prepare(torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8), side=64)
    assert images.shape[-1] == 64
    gradients = []
    for on in (False, True):
        student.activation_checkpointing = on
        student.zero_grad()
        saved = 0

        def count(tensor):
            nonlocal saved
            saved += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = student(images)[0, :8].sum()
        loss.backward()
        gradients.append(
            ({n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}, saved)
        )
    (plain, kept), (again, fewer) = gradients
    assert fewer < kept / 3
    assert plain.keys() == again.keys() and all(torch.equal(plain[name], again[name]) for name in plain)
