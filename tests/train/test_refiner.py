"""Training a Refiner from end to end: it learns, its CLIP stays, and stopping it changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.models.refiner_checkpoints import load_refiner
from densecli.train.refiner import RefinerConfig, make_refiner_trainer, train_refiner
from densecli.train.trainer import Trainer

STEPS = 10  # of 4 steps an epoch: two epochs and a half


def config(tiny_store, run: Path, **settings) -> RefinerConfig:
    defaults = {"crops": 2, "max_steps": STEPS, "checkpoint_every": 3}
    return RefinerConfig(**run_settings(tiny_store.store.root, run, **{**defaults, **settings}))


@pytest.fixture(scope="module")
def undisturbed(tiny_store, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("refiners") / "undisturbed"
    train_refiner(config(tiny_store, run))
    return run


def test_train_refiner__learns(undisturbed) -> None:
    losses = [row["loss"] for row in rows(undisturbed)]
    assert [row["step"] for row in rows(undisturbed)] == list(range(1, STEPS + 1))
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_train_refiner__of_another_depth(tiny_store, tmp_path) -> None:
    train_refiner(config(tiny_store, tmp_path, max_steps=1, depth=1))
    refiner = load_refiner("scenes-s", "random:0", str(tmp_path / "export" / "refiner.safetensors"))
    assert refiner.shape.depth == len(refiner.blocks) == 1
    with pytest.raises(DenseCLIError, match="4 blocks, not 5"):
        make_refiner_trainer(config(tiny_store, tmp_path, depth=5))


def test_train_refiner__the_clip_stays_and_the_rest_moves(tiny_store, tmp_path) -> None:
    trainer = make_refiner_trainer(config(tiny_store, tmp_path, max_steps=3))
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.fit()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - trainer.model.frozen_names()
    assert not any(name.startswith("clip.") for name in moved)


@pytest.mark.parametrize("stop", [2, 3, 5, 9])
def test_train_refiner__resumed_equals_undisturbed(tiny_store, undisturbed, tmp_path, monkeypatch, stop):
    step = Trainer.train_step

    def stopping(self, batch):
        if self.step == stop:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "train_step", stopping)
        train_refiner(config(tiny_store, tmp_path))
    train_refiner(config(tiny_store, tmp_path, workers=0))
    assert rows(tmp_path) == rows(undisturbed)
    names = ("export/refiner.safetensors", "export/card.json")
    assert all((tmp_path / name).read_bytes() == (undisturbed / name).read_bytes() for name in names)


def test_train_refiner__export_is_the_refiner_and_says_whose(undisturbed) -> None:
    path = undisturbed / "export" / "refiner.safetensors"
    state = torch.load(undisturbed / "checkpoints" / f"step-{STEPS:08d}.pt", weights_only=True)["model"]
    exported = safetensors.torch.load_file(path)
    assert exported.keys() == {name for name in state if not name.startswith("encoder.")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in exported.items())
    card = json.loads((undisturbed / "export" / "card.json").read_text())
    _, info = load_model("scenes-s", "random:0")
    assert (card["student"], card["clip"], card["random_weights"]) == ("scenes-s", info.sha256, True)
    assert (card["depth"], card["layers"], card["hidden"]) == (2, [1, 2], 512)
    loaded = load_refiner("scenes-s", "random:0", str(path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.own_state().items())


def test_train_refiner__other_settings_are_another_run(tiny_store, undisturbed) -> None:
    with pytest.raises(DenseCLIError, match=r"tau 0\.2 -> 0\.1"):
        train_refiner(config(tiny_store, undisturbed, tau=0.1))


@pytest.mark.parametrize(
    "settings",
    [
        {"direction": "local-to-global"},
        {"align": "cosine"},
        {"init": "random"},
        {"init": "exogenous", "depth": 1},
        {"init": "scenes-s=random:1"},
        {"init": "pacl"},
        {"late": True},
        {"fc_inter": False, "fc_cls": False},
        {"tokens": 3, "scale": (0.1, 0.2)},
    ],
    ids="-".join,
)
def test_train_refiner__what_the_paper_ablates(tiny_store, undisturbed, tmp_path, settings) -> None:
    result = train_refiner(config(tiny_store, tmp_path, max_steps=2, **settings))
    assert result["loss"] > 0 and rows(tmp_path)[1]["cosine"] != rows(undisturbed)[1]["cosine"]
    state = load_refiner("scenes-s", "random:0", result["export"]).own_state()
    pacl = settings.get("init") == "pacl"
    assert ("fc_inter.0.weight" in state) == (settings.get("fc_inter", True) and not pacl)
    assert any(name.startswith("embedder.") for name in state) == pacl


def test_align__cosine_is_one_minus_the_cosine_of_corresponding_tokens(tiny_store, tmp_path) -> None:
    train_refiner(config(tiny_store, tmp_path, max_steps=1, align="cosine"))
    [row] = rows(tmp_path)
    assert row["loss"] == pytest.approx(1 - row["cosine"], abs=1e-6)


def test_direction__a_crop_of_the_whole_photo_learns_from_itself(tiny_store, tmp_path) -> None:
    """Both ways then compare the same tokens: what the Refiner makes of the photo, and the CLIP's."""
    trainers = [
        make_refiner_trainer(config(tiny_store, tmp_path, direction=direction))
        for direction in ("global-to-local", "local-to-global")
    ]
    for trainer in trainers:
        assert (trainer.recipe.grid, trainer.recipe.side) == (8, 96)
    batch = next(trainers[0].loader.batches(0))
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    pixels = batch.images[:1].permute(0, 2, 3, 1)
    whole = replace(
        batch, images=batch.images[:1], boxes=box, batch_index=torch.zeros(1), targets={"pixels": pixels}
    )
    (there, seen), (here, also) = (t.recipe.forward(t.model, whole) for t in trainers)
    torch.testing.assert_close(there, here, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen, also, atol=1e-5, rtol=0)


def test_config__a_scale_from_small_to_large(tiny_store, tmp_path) -> None:
    with pytest.raises(DenseCLIError, match=r"scale goes from 0\.7 to 0\.3"):
        config(tiny_store, tmp_path, scale=(0.7, 0.3))
