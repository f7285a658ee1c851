"""The trainer from end to end on a tiny store: what a run leaves, and that stopping it changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.shards.store import Store
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.distillation_recipe import Distillation
from densecli.train.run_folder import RunFolder
from densecli.train.steps import Steps
from densecli.train.trainer import Trainer

pytestmark = pytest.mark.slow

STEPS = 10  # of 4 steps an epoch: two epochs and a half


def config(tiny_store, run: Path, **settings) -> TrainConfig:
    length = {"max_steps": STEPS, "checkpoint_every": 3}
    return TrainConfig(**run_settings(tiny_store.store.root, run, **{**length, **settings}))


@pytest.fixture(scope="module")
def undisturbed(tiny_store, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(config(tiny_store, run))
    return run


def test_train__run_folder(tiny_store, undisturbed) -> None:
    assert [row["step"] for row in rows(undisturbed)] == list(range(1, STEPS + 1))
    assert [row["epoch"] for row in rows(undisturbed)] == [0] * 4 + [1] * 4 + [2] * 2
    assert all(row["loss"] == row["region_kl"] and 0 < row["kept"] <= 1 for row in rows(undisturbed))
    resolved = json.loads((undisturbed / "config.json").read_text())
    columns = {"images": tiny_store.store.images, "regions": tiny_store.regions, "labels": tiny_store.labels}
    assert resolved["columns"] == {kind: column.key for kind, column in columns.items()}
    assert resolved["initial_weights"]["random"] is True
    assert {path.name for path in (undisturbed / "checkpoints").iterdir()} == {
        "step-00000009.pt",
        "step-00000010.pt",
    }
    assert list((undisturbed / "tensorboard").iterdir())


def test_train__learns(undisturbed) -> None:
    losses = [row["loss"] for row in rows(undisturbed)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_train__export_moves_only_what_is_trained(undisturbed) -> None:
    card = json.loads((undisturbed / "export" / "card.json").read_text())
    assert (
        card["student"] == "scenes-s" and card["alpha"] == 0.9 and card["initial_weights"]["random"] is True
    )
    exported = safetensors.torch.load_file(undisturbed / "export" / "student.safetensors")
    model, _ = load_model("scenes-s", "random:0")
    state = torch.load(undisturbed / "checkpoints" / f"step-{STEPS:08d}.pt", weights_only=True)["model"]
    frozen = {name.removeprefix("clip.") for name in model.frozen_names("value")}
    moved = 0
    for name, before in model.clip.state_dict().items():
        after = exported[name]
        if name in frozen or not before.is_floating_point():
            assert torch.equal(after, before), name
        else:
            torch.testing.assert_close(after, 0.1 * before + 0.9 * state[f"clip.{name}"])
            moved += not torch.equal(after, before)
    assert moved > 10


@pytest.mark.parametrize("stop", [2, 3, 4, 5, 9])
def test_train__resumed_equals_undisturbed(tiny_store, undisturbed, tmp_path, monkeypatch, stop) -> None:
    """Stopped before the first checkpoint, on one, on an epoch's border, in an epoch, before the end."""
    step = Trainer.train_step

    def stopping(self, batch):
        if self.step == stop:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Trainer, "train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(config(tiny_store, tmp_path))
    monkeypatch.setattr(Trainer, "train_step", step)
    train(config(tiny_store, tmp_path, workers=0))
    assert rows(tmp_path) == rows(undisturbed)
    names = ("export/student.safetensors", "export/card.json")
    assert all((tmp_path / name).read_bytes() == (undisturbed / name).read_bytes() for name in names)


def test_train__killed_equals_undisturbed(tiny_store, undisturbed, tmp_path) -> None:
    code = """
import json, os, signal, sys
from densecli.train.distillation import TrainConfig, train
from densecli.train.run_folder import RunFolder
from densecli.train.steps import Steps
from densecli.train.trainer import Trainer
step = Trainer.train_step
def killed(self, batch):
    if self.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch)
Trainer.train_step = killed
train(TrainConfig(**json.loads(sys.argv[1])))
"""
    settings = json.dumps(asdict(config(tiny_store, tmp_path)))
    done = subprocess.run([sys.executable, "-c", code, settings], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(rows(tmp_path)) == 5
    train(config(tiny_store, tmp_path))
    assert rows(tmp_path) == rows(undisturbed)


def test_train__again_when_finished(tiny_store, undisturbed) -> None:
    before = (undisturbed / "metrics.jsonl").read_bytes()
    result = train(config(tiny_store, undisturbed))
    assert result["step"] == STEPS and os.path.exists(result["export"]) and result["random_weights"]
    assert (undisturbed / "metrics.jsonl").read_bytes() == before


def test_train__overwrite_starts_again(tiny_store, undisturbed, tmp_path) -> None:
    train(config(tiny_store, tmp_path, max_steps=3))
    with pytest.raises(DenseCLIError, match="max_steps 3 -> 10"):
        train(config(tiny_store, tmp_path))
    train(config(tiny_store, tmp_path, resume="overwrite"))
    assert rows(tmp_path) == rows(undisturbed)


def test_train__a_later_run_of_a_process_counts_from_its_own_start(tiny_store, undisturbed, tmp_path) -> None:
    start = time.monotonic()
    result = train(config(tiny_store, tmp_path, max_steps=1))
    assert 0 < result["seconds_to_first_step"] <= time.monotonic() - start


def test_train__no_labels_column(tmp_path) -> None:
    dataset = {"name": "coco", "split": "val2017", "n": 1}
    store = Store.create(tmp_path / "store", dataset, 96, [1])
    with pytest.raises(DenseCLIError, match="no labels column") as caught:
        train(
            TrainConfig(store=store.root, run=str(tmp_path / "run"), student="scenes-s", weights="random:0")
        )
    assert "build-shards --teacher vitl14 --dataset coco --split val2017" in caught.value.commands[0]
    assert not (tmp_path / "run").exists()


def test_train__names_the_column_it_cannot_find(tiny_store, tmp_path) -> None:
    with pytest.raises(DenseCLIError, match="no labels column of vitl14"):
        train(config(tiny_store, tmp_path / "run", teachers=("vitl14",)))


def test_train__more_samples_a_batch_than_the_store_has(tiny_store, tmp_path) -> None:
    with pytest.raises(DenseCLIError, match="fewer samples than a step: 12"):
        train(config(tiny_store, tmp_path, batch_size=12, drop_last=True))


def test_train__too_little_memory_is_said_with_options_that_help(tiny_store, tmp_path) -> None:
    def none_left(outputs, batch, counts):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    trainer = make_trainer(config(tiny_store, tmp_path, batch_size=2))
    trainer.recipe.loss = none_left  # type: ignore[method-assign]
    with pytest.raises(DenseCLIError, match="too little memory to train on 2 photos at a time") as caught:
        trainer.fit()
    assert "--batch-size 1 --accumulate 2, which gives the same steps; or --activation" in caught.value.hint
    alone = config(tiny_store, tmp_path / "alone", batch_size=1, activation_checkpointing=True)
    trainer = make_trainer(alone)
    trainer.recipe.loss = none_left  # type: ignore[method-assign]
    with pytest.raises(DenseCLIError, match="train on 1 photos") as caught:
        trainer.fit()
    assert caught.value.hint == "Try a smaller --image-size, which changes the result."


def spoilt(trainer: Trainer[Distillation], step: int, factor: float) -> Trainer[Distillation]:
    """Its loss times `factor` at one step, counted from 1."""
    loss = trainer.recipe.loss

    def spoil(outputs, batch, counts):
        value, parts = loss(outputs, batch, counts)
        return value * (factor if trainer.step == step - 1 else 1), parts

    trainer.recipe.loss = spoil  # type: ignore[method-assign]
    return trainer


@pytest.mark.parametrize(
    ("factor", "what"), [(float("nan"), "loss of step 4 is nan"), (1e37, "gradient of step 4 is inf")]
)
def test_train__not_finite_stops_before_the_weights(tiny_store, undisturbed, tmp_path, factor, what) -> None:
    trainer = spoilt(make_trainer(config(tiny_store, tmp_path)), 4, factor)
    with pytest.raises(DenseCLIError, match=rf"The {what}.*; samples: 00\d\d, 00") as caught:
        trainer.fit()
    assert "--max-nonfinite-steps" in caught.value.hint
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir())[-1] == "step-00000003.pt"
    train(config(tiny_store, tmp_path))
    assert rows(tmp_path) == rows(undisturbed)


@pytest.mark.parametrize("every", [1, 100])
def test_train__weights_that_a_step_made_infinite_are_never_saved(tiny_store, tmp_path, every) -> None:
    trainer = make_trainer(config(tiny_store, tmp_path, checkpoint_every=every))
    step = trainer.optimizer.step

    def too_far(*args):
        step(*args)
        if trainer.step == 3:
            next(iter(trainer.model.parameters())).data.mul_(torch.inf)

    trainer.optimizer.step = too_far  # type: ignore[method-assign]
    with pytest.raises(DenseCLIError, match="The weights are not finite after step") as caught:
        trainer.fit()
    assert "--lr" in caught.value.hint
    saved = sorted((tmp_path / "checkpoints").glob("*.pt"))
    assert [path.name for path in saved][-1:] == (["step-00000003.pt"] if every == 1 else [])


def test_train__skips_as_many_bad_steps_as_it_may(tiny_store, tmp_path) -> None:
    trainer = spoilt(make_trainer(config(tiny_store, tmp_path, max_nonfinite_steps=1)), 2, float("nan"))
    weights = []
    train_step = trainer.train_step

    def watching(batches):
        row = train_step(batches)
        weights.append({name: p.clone() for name, p in trainer.model.named_parameters()})
        return row

    trainer.train_step = watching  # type: ignore[method-assign]
    assert trainer.fit()["step"] == STEPS
    first, second, third = ({name: w[name] for name in w} for w in weights[:3])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(third[name], second[name]) for name in first)
    assert [row["step"] for row in rows(tmp_path) if row["loss"] is None] == [2]
    with pytest.raises(DenseCLIError, match="The loss of step 3 is nan"):
        again = make_trainer(config(tiny_store, tmp_path / "again", max_nonfinite_steps=1))
        spoilt(spoilt(again, 2, float("nan")), 3, float("nan")).fit()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_train__a_signal_ends_it_with_a_checkpoint(
    tiny_store, undisturbed, tmp_path, monkeypatch, number
) -> None:
    step = Trainer.train_step

    def told_to_go(self, batches):
        if self.step == 4:
            os.kill(os.getpid(), number)
        return step(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", told_to_go)
        result = train(config(tiny_store, tmp_path))
    assert result["step"] == 5 and result["export"] is None and result["signal"] == number
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]
    assert (tmp_path / "checkpoints" / "step-00000005.pt").exists()
    train(config(tiny_store, tmp_path))
    assert rows(tmp_path) == rows(undisturbed)


@pytest.fixture
def python_sigint() -> Iterator[None]:
    """Python's own handler: a shell starts a command in the background without one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_sigint")
def test_train__a_second_ctrl_c_leaves_at_once(tiny_store, undisturbed, tmp_path, monkeypatch) -> None:
    step = Trainer.train_step

    def impatient(self, batches):
        if self.step == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return step(self, batches)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "train_step", impatient)
        train(config(tiny_store, tmp_path))
    assert not (tmp_path / "checkpoints" / "step-00000005.pt").exists()
    train(config(tiny_store, tmp_path))
    assert rows(tmp_path) == rows(undisturbed)


def test_train__what_is_saved_after_a_step_that_is_not_finite_is_the_state_before_it(
    tiny_store, tmp_path
) -> None:
    trainer = spoilt(make_trainer(config(tiny_store, tmp_path / "spoilt")), 4, float("nan"))
    loss = trainer.recipe.loss

    def drawing(outputs, batch, counts):
        torch.rand(3)
        return loss(outputs, batch, counts)

    trainer.recipe.loss = drawing  # type: ignore[method-assign]
    with pytest.raises(DenseCLIError, match="loss of step 4"):
        trainer.fit()
    name = "checkpoints/step-00000003.pt"
    saved = torch.load(tmp_path / "spoilt" / name, weights_only=True)
    torch.manual_seed(0)
    torch.rand(9)
    assert saved["step"] == 3 and saved["nonfinite_steps"] == 0
    assert torch.equal(saved["rng"]["cpu"], torch.get_rng_state())


def test_train__a_checkpoint_of_the_first_version_is_continued(tiny_store, undisturbed, tmp_path) -> None:
    train(config(tiny_store, tmp_path, max_steps=STEPS))
    for file in sorted((tmp_path / "checkpoints").iterdir())[1:]:
        file.unlink()
    [file] = (tmp_path / "checkpoints").iterdir()
    state = torch.load(file, weights_only=True)
    state["bad_steps"] = state.pop("nonfinite_steps")
    torch.save(state, file)
    settings = json.loads((tmp_path / "config.json").read_text())
    newer = ("schedule", "loggers", "picture_every", "loss_options", "max_nonfinite_steps")
    old = {name: value for name, value in settings.items() if name not in newer} | {"max_bad_steps": 0}
    (tmp_path / "config.json").write_text(json.dumps(old))
    train(config(tiny_store, tmp_path))
    assert rows(tmp_path) == rows(undisturbed)


def test_train__a_folder_in_use_is_refused(tiny_store, tmp_path) -> None:
    folder = RunFolder(tmp_path)
    folder.open({}, "interrupted")
    with pytest.raises(DenseCLIError, match=f"being written by process {os.getpid()}"):
        train(config(tiny_store, tmp_path, resume="overwrite"))
    folder.close()


def test_train__text_embeddings_from_a_file(tiny_store, undisturbed, tmp_path) -> None:
    np.save(tmp_path / "text.npy", np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32))
    train(config(tiny_store, tmp_path / "run", max_steps=1, text_embeddings=str(tmp_path / "text.npy")))
    assert rows(tmp_path / "run")[0]["loss"] != rows(undisturbed)[0]["loss"]
    np.save(tmp_path / "text.npy", np.ones((19, 64), np.float32))
    with pytest.raises(DenseCLIError, match="19"):
        train(config(tiny_store, tmp_path / "other", text_embeddings=str(tmp_path / "text.npy")))


@pytest.mark.parametrize(
    ("samples", "drop_last", "accumulate", "steps"),
    [
        (1, False, 1, 1),
        (11, False, 1, 4),
        (12, False, 1, 5),
        (25, False, 1, 9),
        (9, True, 1, 3),
        (10, True, 1, 4),
        (100, False, 2, 19),
    ],
)
def test_train__as_many_samples_as_asked_for(
    tiny_store, tmp_path, samples, drop_last, accumulate, steps
) -> None:
    settings = {"max_steps": None, "drop_last": drop_last, "accumulate": accumulate}
    trainer = make_trainer(config(tiny_store, tmp_path, seen_samples=samples, **settings))
    seen = [sum(len(b.keys) for b in batches) for batches in trainer.steps.batches(0)]
    assert len(seen) == trainer.steps.total == steps
    assert sum(seen[:-1]) < samples <= sum(seen)


def test_train__at_another_size_than_the_canvas(tiny_store, undisturbed, tmp_path) -> None:
    train(config(tiny_store, tmp_path, max_steps=1, image_size=64))
    small, whole = (rows(run)[0]["loss"] for run in (tmp_path, undisturbed))
    assert small != whole and small == pytest.approx(whole, rel=0.5)
    for run, size in ((tmp_path, 64), (undisturbed, 96)):
        card = json.loads((run / "export" / "card.json").read_text())
        assert (card["image_size"], card["canvas"]) == (size, 96)


def test_train__bf16_follows_fp32(tiny_store, undisturbed, tmp_path) -> None:
    train(config(tiny_store, tmp_path, max_steps=1, precision="bf16"))
    [row], first = rows(tmp_path), rows(undisturbed)[0]
    assert row["loss"] != first["loss"] and row["loss"] == pytest.approx(first["loss"], rel=0.05)


def test_train__compiled_follows_eager(tiny_store, tmp_path, monkeypatch) -> None:
    # Traced forward and backward as for every backend, but run by PyTorch: code of Inductor's takes a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    # Two steps of one size: another would be compiled again.
    for compile in (True, False):
        train(config(tiny_store, tmp_path / str(compile), max_steps=2, compile=compile))
    for compiled, eager in zip(rows(tmp_path / "True"), rows(tmp_path / "False"), strict=True):
        assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-3)
    state = torch.load(tmp_path / "True/checkpoints/step-00000002.pt", weights_only=True)["model"]
    assert state.keys() == load_model("scenes-s", "random:0")[0].state_dict().keys()


def test_train__activation_checkpointing_moves_no_number(tiny_store, undisturbed, tmp_path) -> None:
    train(config(tiny_store, tmp_path, activation_checkpointing=True))
    assert rows(tmp_path) == rows(undisturbed)


def test_steps__a_store_without_a_photo_is_one_sentence() -> None:
    loader = SimpleNamespace(steps_per_epoch=0, reader=SimpleNamespace(table=SimpleNamespace(ranges=())))
    with pytest.raises(DenseCLIError, match=r"The store empty holds no photo\."):
        Steps(loader, TrainConfig(store="empty", run="run"), 1)
