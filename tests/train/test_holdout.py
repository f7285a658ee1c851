"""Measurements during a training: they change nothing, they are right, and the best checkpoint is kept."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.core.key_share import share_of_key
from densecli.models.model_card import read_card, run_export
from densecli.models.pooling import region_pool
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.holdout import HoldoutMeasure
from densecli.train.refiner import RefinerConfig, train_refiner

STEPS, HOLDOUT = 4, 0.3
TERMS = {"region_kl": 1.0, "region_cosine": 1.0}


def config(full_store, run: Path, **settings) -> TrainConfig:
    watched = {"holdout": HOLDOUT, "evaluate_every": 2, "keep_best": "holdout/loss"}
    given = {"max_steps": STEPS, "checkpoint_every": 3, "losses": TERMS, "loggers": (), "workers": 0}
    return TrainConfig(**run_settings(full_store.store.root, run, **{**watched, **given, **settings}))


@pytest.fixture(scope="module")
def held_out(full_store) -> set[str]:
    return {key for key in full_store.boxes if share_of_key(key, "holdout") < HOLDOUT}


@pytest.fixture(scope="module")
def measured(full_store, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "measured"
    train(config(full_store, run))
    return run


def test_holdout__is_measured_every_n_steps_and_at_the_end(measured) -> None:
    names = {"loss", *TERMS, "kept", "agreement", "cosine"}
    for row in rows(measured):
        found = {name.removeprefix("holdout/") for name in row if name.startswith("holdout/")}
        assert found == (names if row["step"] % 2 == 0 else set())


def test_holdout__is_the_loss_of_the_export_on_photos_that_no_step_sees(
    full_store, measured, held_out, tmp_path
) -> None:
    trainer = make_trainer(config(full_store, tmp_path, batch_size=1))
    seen = {key for batch in trainer.loader.batches(0) for key in batch.keys}
    assert seen == full_store.boxes.keys() - held_out and len(held_out) > 1

    whole = make_trainer(
        config(full_store, tmp_path, batch_size=1, holdout=0.0, evaluate_every=None, keep_best=None)
    ).loader
    batches = [batch for batch in whole.batches(0) if batch.keys[0] in held_out]
    recipe = trainer.recipe
    recipe.student.network.load_state_dict(safetensors.torch.load_file(run_export(measured)[0]))
    term, same, kept, loss, cosines = recipe.terms["region_kl"], 0, 0, 0.0, []
    with torch.no_grad():
        counts = [recipe.counts(batch) for batch in batches]
        counts = {name: torch.stack([each[name] for each in counts]).sum(dim=0) for name in counts[0]}
        for batch in batches:
            outputs = recipe.forward(recipe.model, batch)
            loss += float(recipe.loss(outputs, batch, counts)[0])
            regions = region_pool(outputs.dense.float(), batch.boxes, batch.batch_index)
            named = batch.targets["labels"][:, : len(term.thing)]
            sure = named.max(dim=1).values > term.theta
            same += int((sure & ((regions @ term.text.T).argmax(dim=1) == named.argmax(dim=1))).sum())
            kept += int(sure.sum())
            cosines.append(torch.cosine_similarity(regions, batch.targets["crops"]))
    last = rows(measured)[-1]
    assert last["holdout/loss"] == pytest.approx(loss, rel=1e-4)
    assert last["holdout/agreement"] == same / kept and kept > 10
    assert last["holdout/cosine"] == pytest.approx(float(torch.cat(cosines).mean()), rel=1e-3, abs=1e-5)


def test_watch__changes_no_weight_and_no_row(full_store, measured, tmp_path) -> None:
    train(config(full_store, tmp_path, evaluate_every=STEPS, keep_best=None))
    steps = [
        [{name: value for name, value in row.items() if "/" not in name} for row in rows(run)]
        for run in (measured, tmp_path)
    ]
    assert steps[0] == steps[1]
    file = "export/student.safetensors"
    assert (tmp_path / file).read_bytes() == (measured / file).read_bytes()


def test_keep_best__stays_besides_the_last_ones_and_is_exported(
    full_store, tmp_path, monkeypatch, capsys
) -> None:
    settings = {"keep_checkpoints": 1, "checkpoint_every": 1, "losses": {"region_kl": 1.0}, "max_steps": 3}
    trainer = make_trainer(config(full_store, tmp_path, evaluate_every=1, **settings))
    values = [3.0, 1.0, float("nan"), 1.5]
    monkeypatch.setattr(HoldoutMeasure, "__call__", lambda _: {"holdout/loss": values[trainer.step]})
    result = trainer.fit()
    assert "After step 1: holdout/loss 1" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "step-00000001.pt",
        "step-00000003.pt",
    }
    best = result["best"]
    assert (best["metric"], best["value"], best["step"]) == ("holdout/loss", 1.0, 1)
    assert result["measured"] == {"before": {"holdout/loss": 3.0}, "last": {"holdout/loss": 1.5}}
    state = torch.load(tmp_path / "checkpoints/step-00000001.pt", weights_only=True)["model"]
    exported, last = (safetensors.torch.load_file(path) for path in (best["export"], result["export"]))
    network = trainer.recipe.student.network
    for name in (name for name, parameter in network.named_parameters() if parameter.requires_grad):
        expected = torch.lerp(trainer.recipe.initial[name], state[f"clip.{name}"], 0.9)
        torch.testing.assert_close(exported[name], expected)
    assert any(not torch.equal(exported[name], last[name]) for name in exported)
    assert run_export(tmp_path / "export-best")[1]["best"]["step"] == 1

    # Another metric begins anew, and says so.
    (tmp_path / "checkpoints/step-00000003.pt").unlink()
    monkeypatch.undo()
    other = config(full_store, tmp_path, evaluate_every=1, **{**settings, "keep_best": "holdout/agreement"})
    assert train(other)["best"]["metric"] == "holdout/agreement"
    assert "does not count any more: it was chosen by holdout/loss" in capsys.readouterr().err
    with pytest.raises(DenseCLIError, match=r"holdout 0\.3 -> 0\.4"):
        train(config(full_store, tmp_path, **{**settings, "holdout": 0.4}))


CODE = """
import json, os, signal, sys
from densecli.train.distillation import TrainConfig, train
from densecli.train.trainer import Trainer
step = Trainer.train_step
def killed(self, batches):
    if self.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batches)
Trainer.train_step = killed
train(TrainConfig(**json.loads(sys.argv[1])))
"""


def test_keep_best__killed_and_continued_equals_undisturbed(full_store, measured, tmp_path) -> None:
    settings = config(full_store, tmp_path)
    words = [sys.executable, "-c", CODE, json.dumps(asdict(settings))]
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    train(settings)
    assert rows(tmp_path) == rows(measured)
    for name in ("export", "export-best"):
        file = f"{name}/student.safetensors"
        assert (tmp_path / file).read_bytes() == (measured / file).read_bytes()
        assert read_card(tmp_path / file) == read_card(measured / file)


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (
            {"keep_best": "Masks-S"},
            "does not measure 'Masks-S'",
            "It measures holdout/loss, holdout/region_kl",
        ),
        ({"keep_best": "holdout/agrement"}, "does not measure", "Did you mean holdout/agreement"),
        ({"holdout": 0.0}, "--evaluate-every has nothing to measure", "--holdout 0.01"),
        ({"holdout": 1e-6}, "keeps none of the 11 photos", "larger share"),
    ],
)
def test_watch__what_cannot_be_measured_is_refused_before_anything_is_written(
    full_store, tmp_path, settings: dict, message: str, hint: str
) -> None:
    with pytest.raises(DenseCLIError, match=message) as caught:
        train(config(full_store, tmp_path / "run", **settings))
    assert hint in caught.value.hint
    assert not os.path.exists(tmp_path / "run")


def test_holdout__of_a_refiner(full_store, tmp_path) -> None:
    settings = run_settings(full_store.store.root, tmp_path, holdout=HOLDOUT, max_steps=1, crops=2)
    result = train_refiner(RefinerConfig(**settings, keep_best="holdout/cosine", loggers=()))
    assert {"holdout/loss", "holdout/cosine"} <= rows(tmp_path)[-1].keys()
    assert Path(result["best"]["export"]).is_file()
