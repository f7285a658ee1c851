"""A compiled network is compiled once: over epochs with a short last batch, whatever their boxes."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from training import rows, run_settings

from densecli.core.compilation import compiler_lacks
from densecli.core.device import pick_device
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.methods import METHODS
from densecli.train.refiner import RefinerConfig, make_refiner_trainer
from densecli.train.trainer import Trainer

TWO_EPOCHS = {"max_steps": 4, "batch_size": 6, "workers": 0, "spatial_side": 3, "theta": 0.1}


# Methods with the same mode give the same network to the compiler, unless they have a head, as feature-kd.
ONE_OF_EACH_MODE = {METHODS[name].settings["mode"]: name for name in reversed([*METHODS])}.values()


class Counting:
    """A backend that runs a graph as it is, and counts how many it was given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def counting(monkeypatch) -> Counting:
    torch._dynamo.reset()
    # Dynamo logs thousands of lines, all of which pytest would keep.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    backend, compiled = Counting(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kwargs: compiled(f, backend=backend, **kwargs))
    return backend


def assert_same(compiled: Path, plain: Path) -> None:
    ours, theirs = rows(compiled), rows(plain)
    assert len(ours) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        *({"method": method} for method in ONE_OF_EACH_MODE),
        {"method": "r-sc-clipself", "views": 2},
        {"method": "feature-kd"},
        {"activation_checkpointing": True, "holdout": 0.3, "evaluate_every": 1},
    ],
    ids=str,
)
def test_compile__once_for_two_epochs(full_store, tmp_path, counting, settings: dict[str, Any]) -> None:
    given = run_settings(full_store.store.root, tmp_path, **{**TWO_EPOCHS, **settings})
    train(TrainConfig(**given, compile=True))
    assert counting.graphs == 1
    assert len(rows(tmp_path)) == TWO_EPOCHS["max_steps"]


@pytest.mark.parametrize("method", ["declip", "r-sc-regiontext"])
def test_compile__filled_batches_give_the_same_numbers(full_store, tmp_path, counting, method: str) -> None:
    for run, compiles in (("compiled", True), ("plain", False)):
        given = {**TWO_EPOCHS, "method": method, "compile": compiles}
        train(TrainConfig(**run_settings(full_store.store.root, tmp_path / run, **given)))
    assert_same(tmp_path / "compiled", tmp_path / "plain")


@pytest.mark.parametrize("settings", [{}, {"direction": "local-to-global"}, {"late": True}], ids=str)
def test_compile__once_for_a_refiner(full_store, tmp_path, counting, settings: dict[str, Any]) -> None:
    for run, compiles in (("compiled", True), ("plain", False)):
        given = {"max_steps": 4, "batch_size": 6, "workers": 0, "crops": 2, **settings, "compile": compiles}
        config = RefinerConfig(**run_settings(full_store.store.root, tmp_path / run, **given))
        make_refiner_trainer(config).fit()
    assert counting.graphs == 1
    assert_same(tmp_path / "compiled", tmp_path / "plain")


def trainer_on_gpu(store: str, run: Path, monkeypatch, **settings: Any) -> Trainer[Any]:
    """A trainer that takes its device for a GPU when it decides whether to compile."""
    trainer = make_trainer(TrainConfig(**run_settings(store, run, **settings)))
    monkeypatch.setattr(trainer, "device", torch.device("cuda"))
    trainer.notes.clear()
    return trainer


def test_compile__is_the_default_on_a_gpu_only(tiny_store, tmp_path, monkeypatch) -> None:
    store = tiny_store.store.root
    assert not make_trainer(TrainConfig(**run_settings(store, tmp_path / "cpu"))).compiled
    trainer = trainer_on_gpu(store, tmp_path / "gpu", monkeypatch)
    monkeypatch.setattr("densecli.train.trainer.compiler_lacks", lambda device: None)
    assert trainer._compiles()
    assert "--no-compile" in trainer.notes[0]
    off = trainer_on_gpu(store, tmp_path / "off", monkeypatch, compile=False)
    assert not off._compiles() and not off.notes


def test_compile__left_out_without_a_compiler(tiny_store, tmp_path, monkeypatch) -> None:
    trainer = trainer_on_gpu(tiny_store.store.root, tmp_path, monkeypatch)
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr("densecli.core.compilation.find_spec", lambda name: name)
    assert compiler_lacks(pick_device("cpu")) == "a C compiler"
    assert not trainer._compiles()
    assert "a C compiler is not installed" in trainer.notes[0]
    monkeypatch.setattr("densecli.core.compilation.find_spec", lambda name: None)
    trainer.notes.clear()
    assert not trainer._compiles()
    assert "triton is not installed" in trainer.notes[0]
