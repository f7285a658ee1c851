"""The loop of a run: batches in, optimiser steps, metrics and checkpoints out, resumed exactly."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints import WeightsInfo
from models.device import pick_device
from shards.errors import DenseCLIError
from shards.progress import Progress
from shards.store import Store
from train.data import Batch, LoaderConfig, Stream
from train.optim import adamw, learning_rate, set_learning_rate
from train.run import Metrics, Resume, RunFolder
from train.state import load_checkpoint, rng_state, save_checkpoint, set_rng_state

# Settings of a run that may change when it is resumed: none of them moves a number on the same device.
FREE = frozenset({"store", "run", "resume", "device", "workers", "checkpoint_every", "keep_checkpoints"})


@dataclass(frozen=True, kw_only=True)
class LoopConfig(LoaderConfig):
    """What every run has.

    store, run: folders. student: architecture; weights: its initial ones, PATH or random:SEED (None: looked
    up by name). max_steps: length of the run in steps, in place of `epochs`. lr: the peak.
    warmup_steps: None is 1000, or a tenth of a run shorter than 10,000 steps. precision: fp32, bf16 or auto
    (bf16 on a GPU). checkpoint_every: in steps.
    """

    store: str
    run: str
    student: str = "eva02-b16"
    weights: str | None = None
    batch_size: int = 48
    epochs: int = 6
    max_steps: int | None = None
    lr: float = 1e-5
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int | None = None
    device: str = "auto"
    precision: str = "auto"
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    resume: Resume = "interrupted"


class Loop:
    """A subclass says what is learnt: `loss` and `export`, with `learn` called before `fit`."""

    model: nn.Module
    initial_weights: WeightsInfo
    optimizer: torch.optim.AdamW

    def __init__(self, config: LoopConfig, store: Store, loader: Stream) -> None:
        """Raises DenseCLIError where the loader has no batch."""
        self.config, self.store, self.loader = config, store, loader
        self.device = pick_device(config.device)
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and self.device.type == "cuda")
        if not loader.steps_per_epoch:
            raise DenseCLIError(
                f"The store {config.store} has no batch of {config.batch_size} samples.",
                hint="Choose a smaller --batch-size, or keep the last batch.",
            )
        self.total_steps = config.max_steps or config.epochs * loader.steps_per_epoch
        shortened = min(1000, self.total_steps // 10)
        self.warmup_steps = shortened if config.warmup_steps is None else config.warmup_steps
        self.step = 0

    def learn(self, model: nn.Module, initial_weights: WeightsInfo) -> None:
        """What is not frozen of `model` will be trained; initial_weights: where it began."""
        self.model, self.initial_weights = model, initial_weights
        self.optimizer = adamw(model, weight_decay=self.config.weight_decay, betas=self.config.betas)

    @property
    def random_weights(self) -> bool:
        """Whether the model began with random weights: its numbers say nothing."""
        return self.initial_weights.random

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and what else to log of it, scalars by name."""
        raise NotImplementedError

    def export(self, folder: str) -> str:
        """Writes what was learnt into `folder`; returns the path of the weights."""
        raise NotImplementedError

    def resolved(self) -> dict[str, Any]:
        """The configuration with nothing left to default or to look up, as JSON values."""
        return {
            **asdict(self.config),
            "betas": list(self.config.betas),
            "precision": "bf16" if self.bf16 else "fp32",
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "canvas": self.store.canvas,
            "initial_weights": asdict(self.initial_weights),
            "random_weights": self.random_weights,
        }

    def fit(self) -> dict[str, Any]:
        """Runs to the last step from wherever the run folder stands, then exports."""
        config, folder = self.config, RunFolder(self.config.run)
        checkpoint = folder.open(self.resolved(), config.resume, FREE)
        torch.manual_seed(config.seed)
        if checkpoint:
            self._load(checkpoint)
        metrics = Metrics(folder, step=self.step)
        progress = Progress(self.total_steps, "steps", done=self.step)
        try:
            started = time.perf_counter()
            for batch in self._batches():
                row = self.train_step(batch.to(self.device))
                now = time.perf_counter()
                row["images_per_s"] = len(batch.keys) / (now - started)
                started = now
                metrics.log(row)
                progress.advance(1, f"loss {row['loss']:.4f}, {row['images_per_s']:.1f} images/s")
                if self.step % config.checkpoint_every == 0 or self.step == self.total_steps:
                    metrics.sync()
                    self._save(folder)
        finally:
            progress.close()
            metrics.close()
        export = self.export(folder.export)
        return {**metrics.last, "run": config.run, "export": export, "random_weights": self.random_weights}

    def train_step(self, batch: Batch) -> dict[str, Any]:
        """One optimiser step; returns its metrics row, `step` counted from 1.

        Raises DenseCLIError at a loss that is not finite, before it reaches the weights.
        """
        config = self.config
        rate = learning_rate(
            self.step, peak=config.lr, warmup_steps=self.warmup_steps, total_steps=self.total_steps
        )
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss, parts = self.loss(batch)
        loss.backward()
        values = _to_floats({"loss": loss.detach(), **parts})
        if not torch.isfinite(loss):
            raise DenseCLIError(
                f"The loss of step {self.step + 1} is {values['loss']}; samples: {', '.join(batch.keys)}.",
                hint="Lower --lr, or run in --precision fp32.",
            )
        self.optimizer.step()
        self.step += 1
        return {"step": self.step, "epoch": batch.epoch, **values, "lr": rate}

    def _batches(self) -> Iterator[Batch]:
        left = self.total_steps - self.step
        while left > 0:
            epoch, start = divmod(self.total_steps - left, self.loader.steps_per_epoch)
            for batch in self.loader.batches(epoch, start):
                yield batch
                left -= 1
                if not left:
                    return

    def _save(self, folder: RunFolder) -> None:
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": rng_state(),
        }
        save_checkpoint(folder.checkpoints, state, keep=self.config.keep_checkpoints)

    def _load(self, checkpoint: str) -> None:
        state = load_checkpoint(checkpoint)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_rng_state(state["rng"])
        self.step = state["step"]


def _to_floats(scalars: dict[str, Tensor]) -> dict[str, float]:
    # One transfer for all of them: each would wait for the device by itself.
    return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))
