"""A training that learns from nothing stops and says why; it never exports an untouched student."""

import json
from pathlib import Path

import pytest
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.train.distillation import TrainConfig, train
from densecli.train.trainer import Trainer


def config(store, run: Path, **settings) -> TrainConfig:
    return TrainConfig(**run_settings(store.store.root, run, **settings))


def test_train__that_keeps_no_region_stops(tiny_store, tmp_path, monkeypatch):
    monkeypatch.setattr("densecli.train.health.MAX_EMPTY_STEPS", 2)
    with pytest.raises(
        DenseCLIError, match=r"region_kl had no region more probable than theta 0\.9999"
    ) as caught:
        train(config(tiny_store, tmp_path / "run", max_steps=5, theta=0.9999))
    assert "in the last 2 steps" in str(caught.value)
    assert f"the column {tiny_store.labels.full_name}, of the regions grid-densevlm" in str(caught.value)
    assert "--theta" in caught.value.hint and "--proposals" in caught.value.hint
    assert [row["step"] for row in rows(tmp_path / "run")] == [1]
    assert not (tmp_path / "run" / "export").exists()


def test_train__that_is_short_and_keeps_no_region_exports_nothing(tiny_store, tmp_path):
    with pytest.raises(DenseCLIError, match=r"no region .* in the last 2 steps"):
        train(config(tiny_store, tmp_path / "run", max_steps=2, theta=0.9999))
    assert not (tmp_path / "run" / "export").exists()


def test_train__that_keeps_some_goes_on(tiny_store, tmp_path, monkeypatch):
    monkeypatch.setattr("densecli.train.health.MAX_EMPTY_STEPS", 1)
    train(config(tiny_store, tmp_path / "run", max_steps=2))
    assert json.loads((tmp_path / "run" / "export" / "card.json").read_text())["total_steps"] == 2


def test_train__that_is_resumed_counts_on(tiny_store, tmp_path, monkeypatch):
    """Steps 1 and 2 before it was stopped, step 3 after."""
    monkeypatch.setattr("densecli.train.health.MAX_EMPTY_STEPS", 3)
    settings = {"max_steps": 9, "theta": 0.9999, "checkpoint_every": 1}
    step = Trainer.train_step

    def stopping(self, batches):
        if self.step == 2:
            raise KeyboardInterrupt
        return step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(config(tiny_store, tmp_path, **settings))
    with pytest.raises(DenseCLIError, match=r"no region .* in the last 3 steps"):
        train(config(tiny_store, tmp_path, **settings))
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


def test_train__one_loss_of_two_may_not_be_empty_either(full_store, tmp_path, monkeypatch):
    monkeypatch.setattr("densecli.train.health.MAX_EMPTY_STEPS", 1)
    losses = {"region_kl": 1.0, "region_cosine": 1.0}
    with pytest.raises(DenseCLIError, match=r"The loss region_kl had no region"):
        train(config(full_store, tmp_path / "run", max_steps=3, theta=0.9999, losses=losses))
