"""The memory of a step is known before the first one, and activations are computed again where it must be."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training import run_settings

from densecli.train.distillation import TrainConfig, make_trainer
from densecli.train.memory import LiveBytes, gigabytes, step_bytes
from densecli.train.refiner import RefinerConfig, make_refiner_trainer
from densecli.train.trainer import Trainer


def trainer_of(store: str, run: Path, **settings: Any) -> Trainer[Any]:
    given = {"batch_size": 6, "workers": 0, "spatial_side": 3, "theta": 0.0, "max_steps": 2, **settings}
    return make_trainer(TrainConfig(**run_settings(store, run, **given)))


def take(trainer: Trainer[Any], batch: Any) -> None:
    """A real step, up to its gradients."""
    recipe = trainer.recipe
    counts = recipe.counts(batch)
    with trainer.precision.autocast():
        outputs = recipe.forward(trainer.model, batch)
    loss, _ = recipe.loss(outputs, batch, counts)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    torch.autograd.grad(loss, trained, allow_unused=True)


def alive(trainer: Trainer[Any], batch: Any) -> int:
    """Bytes of the storages that a real step has at its peak."""
    with LiveBytes() as live:
        take(trainer, batch)
    return live.peak


def saved(trainer: Trainer[Any], batch: Any) -> int:
    """Bytes that the forward pass of a real step saves for the backward pass."""
    kept = {}
    own = {id(x.untyped_storage()) for x in (*trainer.model.parameters(), *trainer.model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in own:
            kept[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        take(trainer, batch)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "densevlm"},
        {"method": "densevlm", "precision": "bf16"},
        {"method": "r-sc-regiontext"},
        {"method": "declip"},
        {"method": "declip", "activation_checkpointing": True},
    ],
    ids=str,
)
def test_step_bytes__is_what_a_step_takes(full_store, tmp_path, settings: dict[str, Any]) -> None:
    trainer = trainer_of(full_store.store.root, tmp_path, **settings)
    [batch] = next(trainer.steps.batches(0))
    estimate = step_bytes(trainer.recipe, batch, trainer.precision)
    assert estimate == pytest.approx(alive(trainer, batch), rel=0.02)
    if not settings.get("activation_checkpointing"):
        assert saved(trainer, batch) < estimate < 2 * saved(trainer, batch)


def test_step_bytes__of_a_refiner(full_store, tmp_path) -> None:
    given = run_settings(full_store.store.root, tmp_path, workers=0, crops=2, max_steps=2)
    trainer = make_refiner_trainer(RefinerConfig(**given))
    [batch] = next(trainer.steps.batches(0))
    assert step_bytes(trainer.recipe, batch, trainer.precision) == pytest.approx(
        alive(trainer, batch), rel=0.02
    )


def test_step_bytes__computes_nothing(full_store, tmp_path) -> None:
    trainer = trainer_of(full_store.store.root, tmp_path, method="declip")
    [batch] = next(trainer.steps.batches(0))
    before = {name: x.clone() for name, x in trainer.model.state_dict().items()}
    with LiveBytes() as live:
        step_bytes(trainer.recipe, batch, trainer.precision)
    assert all(torch.equal(before[name], x) for name, x in trainer.model.state_dict().items())
    assert all(p.grad is None for p in trainer.model.parameters())
    assert live.now == 0


def free(monkeypatch, count: int) -> None:
    monkeypatch.setattr("densecli.train.room.free_bytes", lambda device: count)


def test_train__enough_memory_is_said(tiny_store, tmp_path, monkeypatch, capsys) -> None:
    free(monkeypatch, 10**12)
    trainer = trainer_of(tiny_store.store.root, tmp_path)
    trainer.fit()
    assert not trainer.recipe.student.activation_checkpointing
    said = capsys.readouterr().err
    assert said.count("A step takes about ") == 1
    assert "of the 1000 GB that are free on cpu." in said


def test_train__too_little_memory_recomputes_activations(tiny_store, tmp_path, monkeypatch, capsys) -> None:
    free(monkeypatch, 2**20)
    trainer = trainer_of(tiny_store.store.root, tmp_path)
    trainer.fit()
    assert trainer.recipe.student.activation_checkpointing
    said = capsys.readouterr().err
    assert "So activations are computed again in the backward pass" in said
    assert "This may not fit. Try --batch-size 3 --accumulate 2, which gives the same steps" in said


def test_train__memory_saving_that_was_refused_stays_off(tiny_store, tmp_path, monkeypatch, capsys) -> None:
    free(monkeypatch, 2**20)
    trainer = trainer_of(tiny_store.store.root, tmp_path, activation_checkpointing=False)
    trainer.fit()
    assert not trainer.recipe.student.activation_checkpointing
    assert "--activation-checkpointing, which is slower" in capsys.readouterr().err


def test_gigabytes() -> None:
    assert [gigabytes(n) for n in (115_942_370_696, 9_960_000_000)] == ["116 GB", "10.0 GB"]
