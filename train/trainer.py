"""The trainer: one process, CPU or one GPU, a student that follows the columns of a store."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import load_model
from models.device import pick_device
from models.pooling import region_pool
from models.text import category_embeddings
from shards.errors import DenseCLIError
from shards.progress import Progress
from shards.store import Column, Store
from train.columns import find_regions, find_targets
from train.data import Batch, Loader, LoaderConfig
from train.export import export_student
from train.losses import Reduction
from train.methods import find_method, term_and_kind
from train.optim import adamw, freeze, learning_rate, set_learning_rate
from train.run import Metrics, Resume, RunFolder
from train.state import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from train.terms import (
    Context,
    RegionCosine,
    RegionKL,
    RegionText,
    Spatial,
    StudentOutput,
    Term,
    weighted_sum,
)

# Settings of a run that may change when it is resumed: none of them moves a number on the same device.
FREE = frozenset({"store", "run", "resume", "device", "workers", "checkpoint_every", "keep_checkpoints"})

# What the exported weights say about themselves, out of the resolved configuration.
CARD = (
    "student",
    "canvas",
    "mode",
    "store",
    "columns",
    "losses",
    "total_steps",
    "initial_weights",
    "random_weights",
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that defines a run.

    store, run: folders. student: architecture; weights: its initial ones, PATH or random:SEED (None: looked
    up by name). method: preset of loss terms; losses: the terms and weights to use in its place. teacher:
    name (or NAME-ID) of the target column where the store has several. text_embeddings: file of the student's
    text embeddings (None: its own text tower says them). mode: dense read-out of the student. tau, theta,
    decoupling (its row), beta, reduction: see `losses.decoupled_kl`. max_steps: length of the run in steps,
    in place of `epochs`. warmup_steps: None is 1000, or a tenth of a run shorter than 10,000 steps. alpha:
    weight of the student in the export. precision: fp32, bf16 or auto (bf16 on a GPU). checkpoint_every: in
    steps.
    """

    store: str
    run: str
    student: str = "eva02-b16"
    weights: str | None = None
    method: str = "densevlm"
    losses: Mapping[str, float] | None = None
    teachers: tuple[str, ...] = ()
    regions: str | None = None
    text_embeddings: str | None = None
    mode: str | None = None
    tau: float = 0.01
    theta: float = 0.3
    decoupling: int = 4
    beta: float | None = None
    reduction: Reduction = "regions"
    spatial_tau: float = 0.2
    spatial_side: int = 7
    batch_size: int = 48
    drop_last: bool = False
    epochs: int = 6
    max_steps: int | None = None
    lr: float = 1e-5
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int | None = None
    alpha: float = 0.9
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int = 2
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    resume: Resume = "interrupted"


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains, or continues, the run of `config`.

    Returns the last metrics row with `run`, `export` (path of the weights) and `random_weights` (student or
    teacher). Raises DenseCLIError.
    """
    return Trainer(config).fit()


class Trainer:
    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and self.device.type == "cuda")
        method = find_method(config.method)
        self.loss_weights = dict(config.losses or method.losses)
        reads = {loss: term_and_kind(loss) for loss in self.loss_weights}

        self.store = Store.open(config.store)
        kinds = sorted({kind for _, kind in reads.values()})
        self.targets = find_targets(self.store, kinds, teachers=config.teachers, student=config.student)
        self.loader = Loader(
            self.store,
            find_regions(self.store, self.targets, config.regions),
            self.targets,
            LoaderConfig(
                batch_size=config.batch_size,
                seed=config.seed,
                drop_last=config.drop_last,
                workers=config.workers,
            ),
        )
        if not self.loader.steps_per_epoch:
            raise DenseCLIError(
                f"The store {config.store} has no batch of {config.batch_size} samples.",
                hint="Choose a smaller --batch-size, or keep the last batch.",
            )
        self.total_steps = config.max_steps or config.epochs * self.loader.steps_per_epoch
        shortened = min(1000, self.total_steps // 10)
        self.warmup_steps = shortened if config.warmup_steps is None else config.warmup_steps

        # The encoder stays in eval mode, as it was loaded: no dropout, and batch statistics do not drift.
        self.model, self.initial_weights = load_model(config.student, config.weights, self.device)
        self.mode = config.mode or (method.mode if self.model.has_mode(method.mode) else "value")
        freeze(self.model, self.model.frozen_names(self.mode))
        self.initial = {name: tensor.clone() for name, tensor in self.model.clip.state_dict().items()}
        self.terms = {loss: self._term(term, kind) for loss, (term, kind) in reads.items()}
        self.optimizer = adamw(self.model, weight_decay=config.weight_decay, betas=config.betas)
        self.step = 0

    def _term(self, term: str, kind: str) -> Term:
        config, column = self.config, self.targets[kind]
        match term:
            case "region_kl":
                return RegionKL(
                    column,
                    self._text(column),
                    tau=config.tau,
                    theta=config.theta,
                    row=config.decoupling,
                    beta=config.beta,
                    reduction=config.reduction,
                )
            case "region_text":
                return RegionText(self._text(column), tau=config.tau, theta=config.theta)
            case "region_cosine":
                return RegionCosine(column)
            case "context":
                return Context(kind)
            case "spatial":
                return Spatial(kind, tau=config.spatial_tau, side=config.spatial_side)
        raise AssertionError(term)

    def _text(self, column: Column) -> Tensor:
        """(D, C) the student's embeddings of a labels column's categories."""
        names = column.spec["target"]["categories"]
        return category_embeddings(self.model, names, file=self.config.text_embeddings)

    @property
    def random_weights(self) -> bool:
        """Whether the student began, or a teacher spoke, with random weights: its numbers say nothing."""
        teachers = (column.info.get("random_weights", False) for column in self.targets.values())
        return self.initial_weights.random or any(teachers)

    def resolved(self) -> dict[str, Any]:
        """The configuration with nothing left to default or to look up, as JSON values."""
        return {
            **asdict(self.config),
            "losses": self.loss_weights,
            "mode": self.mode,
            "teachers": list(self.config.teachers),
            "betas": list(self.config.betas),
            "precision": "bf16" if self.bf16 else "fp32",
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "canvas": self.store.canvas,
            "columns": {kind: column.key for kind, column in self.targets.items()},
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
        export = self._export(folder)
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
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            dense, context = self.model(self.model.prepare(batch.images), self.mode, context=True)
        dense = dense.float()
        student = StudentOutput(dense, region_pool(dense, batch.boxes, batch.batch_index), context)
        loss, parts = weighted_sum(self.terms, self.loss_weights, student, batch)
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

    def _export(self, folder: RunFolder) -> str:
        resolved = self.resolved()
        card = {name: resolved[name] for name in CARD}
        return export_student(
            self.model.clip, self.initial, alpha=self.config.alpha, folder=folder.export, card=card
        )


def _to_floats(scalars: dict[str, Tensor]) -> dict[str, float]:
    # One transfer for all of them: each would wait for the device by itself.
    return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))
