"""Parameters that no loss depends on are frozen, and named once."""

from pathlib import Path

import pytest
from training import run_settings

from densecli.train.distillation import TrainConfig, make_trainer
from densecli.train.methods import METHODS

OF_QUERIES = {"losses": {"context:gram": 1.0}, "mode": "qq"}


@pytest.mark.parametrize(
    "settings",
    [
        *({"method": method} for method in METHODS),
        OF_QUERIES,
        {"losses": {"context:gram": 1.0}, "mode": "csa+scale"},
        {"losses": {"context:gram": 1.0, "region_cosine": 1.0}, "mode": "qq"},
        {"method": "feature-kd", "loss_options": {"region_cosine.projection": "true"}},
    ],
    ids=str,
)
def test_parameters__each_trained_one_has_a_gradient(full_store, tmp_path: Path, settings: dict) -> None:
    given = {"max_steps": 2, "workers": 0, "spatial_side": 3, "theta": 0.0, **settings}
    trainer = make_trainer(TrainConfig(**run_settings(full_store.store.root, tmp_path, **given)))
    trainer.train_step(next(trainer.steps.batches(0)))
    trained = {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained and all(gradient is not None for gradient in trained.values())
    only_context = list(settings.get("losses", ())) == ["context:gram"]
    assert bool(trainer.recipe.unread) == only_context
    assert not any(name in trained for name in trainer.recipe.unread)


def test_parameters__those_that_no_loss_depends_on_are_named(full_store, tmp_path) -> None:
    config = TrainConfig(**run_settings(full_store.store.root, tmp_path, **OF_QUERIES))
    trainer = make_trainer(config)
    [note] = [note for note in trainer.notes if "No loss" in note]
    assert trainer.recipe.unread and all(name in note for name in trainer.recipe.unread)
    assert trainer.resolved()["unread"] == trainer.recipe.unread
