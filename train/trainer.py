"""The loop of a run: batches in, optimiser steps, metrics and checkpoints out, resumed exactly."""

import math
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from densecli.core.device import pick_device
from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.core.signals import heeding_signals
from densecli.core.startup import started
from densecli.models.checkpoints import WeightsInfo
from densecli.shards.store import Store
from densecli.train.checkpoints import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from densecli.train.config import FREE, TrainerConfig
from densecli.train.dataloader import Batch, Stream
from densecli.train.optim import adamw, learning_rate, set_learning_rate
from densecli.train.run_folder import Report, RunFolder, Silence


class NonFiniteStep(DenseCLIError):
    """A loss or a gradient that is not finite, noticed before it reached the weights."""


class Trainer:
    """A subclass says what is learnt: `counts`, `loss` and `export`, with `learn` called before `fit`."""

    model: nn.Module
    initial_weights: WeightsInfo
    optimizer: torch.optim.AdamW
    forward: nn.Module
    """`model` as a step calls it: gradients come back as the mean over the processes."""

    def __init__(
        self, config: TrainerConfig, store: Store, loader: Stream, ranks: Distributed | None = None
    ) -> None:
        """ranks: None is this process alone. Raises DenseCLIError where the loader has no batch."""
        self.started = started()
        self.config, self.store, self.loader = config, store, loader
        self.ranks = ranks or Distributed(device=pick_device(config.device))
        self.device = self.ranks.device
        on_gpu = self.device.type == "cuda"
        self.precision = ("bf16" if on_gpu else "fp32") if config.precision == "auto" else config.precision
        self.bf16 = self.precision == "bf16"
        torch.backends.cuda.matmul.allow_tf32 = self.precision != "fp32"
        torch.backends.cudnn.allow_tf32 = self.precision != "fp32"
        full, rest = divmod(loader.steps_per_epoch, config.accumulate)
        self.steps_per_epoch = full if config.drop_last or not rest else full + 1
        if not self.steps_per_epoch:
            raise DenseCLIError(
                f"The store {config.store} has no batch of {self.samples_per_step} samples.",
                hint="Choose a smaller --batch-size, or keep the last batch.",
            )
        self.total_steps = config.max_steps or self._length()
        shortened = min(1000, self.total_steps // 10)
        self.warmup_steps = shortened if config.warmup_steps is None else config.warmup_steps
        self.step = 0
        self.nonfinite_steps = 0

    def learn(self, model: nn.Module, initial_weights: WeightsInfo) -> None:
        """What is not frozen of `model` will be trained; initial_weights: where it began."""
        self.model, self.initial_weights = model, initial_weights
        config = self.config
        fused = self.device.type == "cuda"
        self.optimizer = adamw(model, weight_decay=config.weight_decay, betas=config.betas, fused=fused)
        if config.compile:
            model.compile()
        self.forward = self.ranks.wrap(model)

    def _length(self) -> int:
        """Of the run in steps, as `epochs` or `seen_samples` says."""
        if not self.config.seen_samples:
            return self.config.epochs * self.steps_per_epoch
        # With drop_last an epoch shows fewer than there are, else its last step has fewer than the others.
        an_epoch = min(len(self.loader), self.steps_per_epoch * self.samples_per_step)
        epochs, rest = divmod(self.config.seen_samples, an_epoch)
        return epochs * self.steps_per_epoch + math.ceil(rest / self.samples_per_step)

    @property
    def samples_per_step(self) -> int:
        """Of all processes; the last step of an epoch may have fewer."""
        return self.config.batch_size * self.ranks.world_size * self.config.accumulate

    @property
    def random_weights(self) -> bool:
        """Whether the model began with random weights: its numbers say nothing."""
        return self.initial_weights.random

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Of how many regions, images, ... of the batch each mean in the loss is: int64, by any names."""
        raise NotImplementedError

    def loss(self, batch: Batch, counts: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What a batch adds to the loss of its step, and to what else is logged of it, scalars by name.

        counts: those of the whole step. The mean of the means of its parts would be another number.
        """
        raise NotImplementedError

    def export(self, folder: str) -> str:
        """Writes what was learnt into `folder`; returns the path of the weights."""
        raise NotImplementedError

    def resolved(self) -> dict[str, Any]:
        """The configuration with nothing left to default or to look up, as JSON values."""
        return {
            **asdict(self.config),
            "betas": list(self.config.betas),
            "precision": self.precision,
            "ranks": self.ranks.world_size,
            "samples_per_step": self.samples_per_step,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "canvas": self.store.canvas,
            "columns": {"images": self.store.images.key},
            "initial_weights": asdict(self.initial_weights),
            "random_weights": self.random_weights,
        }

    def fit(self) -> dict[str, Any]:
        """Runs to the last step from wherever the run folder stands, then exports.

        Returns the last metrics row with `run`, `export`, `random_weights` and `seconds_to_first_step`, from
        the start of the process (of a later run of it, from its own); after a SIGTERM, which ends the run
        with a checkpoint, `export` is None. A dry run gives `planned`, `run`, the `step` to continue from,
        `total_steps` and `random_weights`.
        """
        config, ranks, folder = self.config, self.ranks, RunFolder(self.config.run)
        dry_run = config.dry_run
        checkpoint = ranks.on_rank_zero(
            lambda: folder.open(self.resolved(), config.resume, FREE, dry_run=dry_run)
        )
        if dry_run:
            return {
                "planned": True,
                "run": config.run,
                "step": load_checkpoint(checkpoint)["step"] if checkpoint else 0,
                "total_steps": self.total_steps,
                "random_weights": self.random_weights,
            }
        torch.manual_seed(config.seed)
        if checkpoint:
            self._load(checkpoint)
        first_step = None
        speaks = Report(folder, step=self.step, total=self.total_steps) if ranks.first else Silence()
        with (
            closing(speaks) as report,
            closing(self._batches()) as steps,
            heeding_signals([signal.SIGTERM]) as stop,
        ):
            started = time.perf_counter()
            for batches in steps:
                try:
                    row = self.train_step(*batches)
                except NonFiniteStep:
                    self._save(folder, report)
                    raise
                now = time.perf_counter()
                row["images_per_s"] = row.pop("samples") / (now - started)
                started = now
                report.log(row)
                if first_step is None:
                    first_step = time.monotonic() - self.started
                    report.begun(first_step)
                stopped = ranks.any(stop.signal is not None)
                if stopped or self.step % config.checkpoint_every == 0 or self.step == self.total_steps:
                    self._save(folder, report)
                if stopped:
                    break
        finished = self.step == self.total_steps
        return {
            **report.last,
            "run": config.run,
            "export": ranks.on_rank_zero(lambda: self.export(folder.export)) if finished else None,
            "random_weights": self.random_weights,
            "seconds_to_first_step": first_step,
        }

    def train_step(self, *batches: Batch) -> dict[str, Any]:
        """One optimiser step on the batches of all processes together, as if they were one.

        Returns its metrics row, `step` counted from 1, `samples` those of all processes. A step whose loss or
        gradient is not finite leaves the weights alone; after `max_nonfinite_steps` of them NonFiniteStep is raised.
        """
        config, ranks = self.config, self.ranks
        rate = learning_rate(
            self.step, peak=config.lr, warmup_steps=self.warmup_steps, total_steps=self.total_steps
        )
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        counts = self._count(batches)
        parts = [
            self._backward(batch, counts, last=number == len(batches))
            for number, batch in enumerate(batches, start=1)
        ]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        sums = ranks.add(torch.stack([torch.stack(list(part.values())) for part in parts]).sum(dim=0))
        # One transfer for all of them: each would wait for the device by itself.
        *scalars, norm = torch.cat([sums, get_total_norm(gradients)[None]]).tolist()
        values = {**dict(zip(parts[0], scalars, strict=True)), "grad_norm": norm}
        if math.isfinite(values["loss"]) and math.isfinite(norm):
            self.optimizer.step()
        else:
            self._bad_step(values, [key for batch in batches for key in batch.keys])
        self.step += 1
        return {"step": self.step, "epoch": batches[0].epoch, **values, "lr": rate}

    def _count(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """`counts` of the batches of all processes together."""
        counts = [{name: n * bool(b.keys) for name, n in self.counts(b).items()} for b in batches]
        return {
            name: self.ranks.add(torch.stack([each[name] for each in counts]).sum(dim=0))
            for name in counts[0]
        }

    def _backward(self, batch: Batch, counts: dict[str, Tensor], *, last: bool) -> dict[str, Tensor]:
        """Adds a batch's gradients; returns what it adds to the metrics. Processes meet in the last one."""
        alone = nullcontext() if last or self.ranks.world_size == 1 else self.forward.no_sync()  # type: ignore[operator]
        # A process without a sample of its own goes along with another's.
        share = bool(batch.keys)
        with alone:
            loss, parts = self.loss(batch, counts)
            (loss * share * self.ranks.world_size).backward()
        parts = {"loss": loss.detach(), **parts}
        samples = loss.new_full((), len(batch.keys), dtype=torch.float32)
        return {**{name: value * share for name, value in parts.items()}, "samples": samples}

    def _bad_step(self, values: dict[str, float], keys: list[str]) -> None:
        self.nonfinite_steps += 1
        if self.nonfinite_steps <= self.config.max_nonfinite_steps:
            return
        what = "gradient" if math.isfinite(values["loss"]) else "loss"
        value = values["grad_norm" if what == "gradient" else "loss"]
        keys = [key for part in self.ranks.gather(keys) for key in part]
        self.nonfinite_steps -= 1
        raise NonFiniteStep(
            f"The {what} of step {self.step + 1} is {value}; samples: {', '.join(keys)}.",
            hint="The state before it is saved. Lower --lr, run in --precision fp32, or skip such steps with "
            "--max-nonfinite-steps.",
        )

    def _batches(self) -> Generator[list[Batch]]:
        """The batches of one step after another, on the device."""
        steps = self._steps()

        def load(_: int) -> list[Batch]:
            return [batch.to(self.device) for batch in next(steps)]

        # One thread makes the next step's batches while the GPU computes this one's.
        return prefetch(load, range(self.total_steps - self.step), threads=1, window=2)

    def _steps(self) -> Iterator[list[Batch]]:
        left, accumulate = self.total_steps - self.step, self.config.accumulate
        while left:
            epoch, start = divmod(self.total_steps - left, self.steps_per_epoch)
            batches = self.loader.batches(epoch, start * self.samples_per_step)
            for _ in range(min(left, self.steps_per_epoch - start)):
                yield list(islice(batches, accumulate))
                left -= 1

    def _save(self, folder: RunFolder, report: Report) -> None:
        if not self.ranks.first:
            return
        report.sync()
        state = {
            "step": self.step,
            "nonfinite_steps": self.nonfinite_steps,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": rng_state(),
        }
        save_checkpoint(folder.checkpoints, state, keep=self.config.keep_checkpoints)

    def _load(self, checkpoint: str) -> None:
        state = load_checkpoint(checkpoint)
        self.model.load_state_dict(state["model"])
        # Only what it has learnt: how it computes is a matter of the device, which may be another.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        set_rng_state(state["rng"])
        self.step, self.nonfinite_steps = state["step"], state["nonfinite_steps"]
