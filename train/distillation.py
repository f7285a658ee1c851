"""The trainer: a student that follows the columns of a store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from densecli.core.device import pick_device
from densecli.core.distributed import Distributed, joined_processes
from densecli.core.errors import DenseCLIError
from densecli.models.dense import DenseCLIP
from densecli.models.pooling import region_pool
from densecli.models.student import Student, load_student
from densecli.models.text import category_embeddings
from densecli.models.transformer import DenseTransformer
from densecli.shards.store import Column, Store
from densecli.train.averaging import export_student
from densecli.train.columns import find_regions, find_targets
from densecli.train.config import TrainerConfig
from densecli.train.dataloader import Batch, Loader
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.losses import Reduction
from densecli.train.methods import find_method, term_and_kind
from densecli.train.optim import freeze
from densecli.train.terms import (
    Context,
    RegionCosine,
    RegionKL,
    RegionText,
    Spatial,
    StudentOutput,
    Term,
    weighted_sum,
)
from densecli.train.trainer import Trainer

# What the exported weights say about themselves, out of the resolved configuration.
CARD = (
    "student",
    "canvas",
    "image_size",
    "mode",
    "store",
    "columns",
    "losses",
    "total_steps",
    "initial_weights",
    "random_weights",
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainerConfig):
    """Everything that defines a run, beside what every run has.

    method: preset of loss terms; losses: the terms and weights to use in its place. teachers: names (or
    NAME-ID) of the target columns where the store has several; regions, categories, refiner: only those of
    this plan, of this set or file, of the Refiner of this run or file. views: train on the first so many of a
    photo's stored views, as if no more were stored (None: on all). blocks: how many of a transformer's last
    blocks are trained (None: all). image_size: side in pixels to which the canvas is resized for the student
    (None: that of the store). decode: by Pillow, which the teachers saw the photos through, or on the GPU.
    text_embeddings: file of the student's text embeddings (None: its own text tower says them). mode: dense
    read-out of the student. tau, theta, decoupling (its row), beta, reduction: see `losses.decoupled_kl`.
    spatial_tau, spatial_side: see `correlation.spatial_loss`. alpha: weight of the student in the export.
    """

    method: str = "densevlm"
    losses: Mapping[str, float] | None = None
    teachers: tuple[str, ...] = ()
    regions: str | None = None
    categories: str | None = None
    views: int | None = None
    refiner: str | None = None
    blocks: int | None = None
    image_size: int | None = None
    decode: Literal["cpu", "gpu"] = "cpu"
    text_embeddings: str | None = None
    mode: str | None = None
    tau: float = 0.01
    theta: float = 0.3
    decoupling: int = 4
    beta: float | None = None
    reduction: Reduction = "regions"
    spatial_tau: float = 0.2
    spatial_side: int = 7
    alpha: float = 0.9


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains, or continues, the run of `config`.

    Under torchrun, all its processes train together. Returns what `Trainer.fit` does. Raises DenseCLIError.
    """
    with joined_processes(config.device) as ranks:
        return Distillation(config, ranks).fit()


def columns_read(store: Store, config: TrainConfig) -> tuple[Column, dict[str, Column]]:
    """The boxes and, by kind, the target columns that a run reads. DenseCLIError where one is missing."""
    losses = config.losses or find_method(config.method).losses
    targets = find_targets(
        store,
        sorted({term_and_kind(loss)[1] for loss in losses}),
        teachers=config.teachers,
        student=config.student,
        regions=config.regions,
        categories=config.categories,
        views=config.views,
        refiner=config.refiner,
    )
    return find_regions(store, targets, config.regions), targets


class Distillation(Trainer):
    config: TrainConfig
    loader: Loader
    model: Student

    def __init__(self, config: TrainConfig, ranks: Distributed | None = None) -> None:
        """See `Trainer`."""
        ranks = ranks or Distributed(device=pick_device(config.device))
        method = find_method(config.method)
        reads = {loss: term_and_kind(loss) for loss in config.losses or method.losses}

        store = Store.open(config.store)
        regions, self.targets = columns_read(store, config)
        loader = Loader(
            store,
            regions,
            self.targets,
            config,
            views=config.views,
            decoder=JpegDecoder.on_gpu(store.canvas, ranks.device) if config.decode == "gpu" else None,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
        super().__init__(config, store, loader, ranks)

        # The encoder stays in eval mode, as it was loaded: no dropout, and batch statistics do not drift.
        model, weights = load_student(config.student, config.weights, self.device)
        self.mode = config.mode or (method.mode if model.has_mode(method.mode) else "value")
        large = isinstance(model, DenseCLIP) and model.arch.size == "large"
        self.loss_weights = dict(config.losses or method.weights(large=large))
        frozen = model.frozen_names(self.mode)
        freeze(model, frozen | model.names_outside(config.blocks) if config.blocks else frozen)
        convolutional = isinstance(model, DenseCLIP) and not isinstance(model, DenseTransformer)
        if self.device.type == "cuda" and convolutional:
            model.to(memory_format=torch.channels_last)
        model.activation_checkpointing = config.activation_checkpointing
        self.learn(model, weights)
        self.initial = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        self.terms = {loss: self._term(term, kind) for loss, (term, kind) in reads.items()}

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
        if not isinstance(self.model, DenseCLIP):
            raise DenseCLIError(
                f"{self.config.student} has no texts, and cannot learn from the labels of {column.name}.",
                hint="Train it by its tokens alone: --method r-sc-v, or --loss spatial:gram=1.",
            )
        names = column.spec["target"]["categories"]
        return category_embeddings(self.model, names, file=self.config.text_embeddings)

    @property
    def random_weights(self) -> bool:
        """Whether the student began, or a teacher spoke, with random weights: its numbers say nothing."""
        teachers = (column.info.get("random_weights", False) for column in self.targets.values())
        return super().random_weights or any(teachers)

    def resolved(self) -> dict[str, Any]:
        """See `Trainer.resolved`."""
        common = super().resolved()
        columns = {"regions": self.loader.regions, **self.targets}
        return {
            **common,
            "image_size": self.config.image_size or self.store.canvas,
            "losses": self.loss_weights,
            "mode": self.mode,
            "teachers": list(self.config.teachers),
            "columns": common["columns"] | {kind: column.key for kind, column in columns.items()},
        }

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """See `Trainer.counts`; by term."""
        return {name: term.counts(batch) for name, term in self.terms.items()}

    def loss(self, batch: Batch, counts: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms, and each of them; see `Trainer.loss`."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            images = self.model.prepare(batch.images, side=self.config.image_size)
            dense, context = self.forward(images, self.mode, context=True)
        dense = dense.float()
        student = StudentOutput(dense, region_pool(dense, batch.boxes, batch.batch_index), context)
        return weighted_sum(self.terms, self.loss_weights, student, batch, counts)

    def export(self, folder: str) -> str:
        """The alpha-averaged student with its card; see `export_student`."""
        resolved = self.resolved()
        card = {name: resolved[name] for name in CARD}
        return export_student(
            self.model.network, self.initial, alpha=self.config.alpha, folder=folder, card=card
        )
