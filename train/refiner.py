"""Trains a Refiner: a region's tokens in the whole photo learn to match those of its crop (R-SC)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecli.core import fs
from densecli.core.device import pick_device, set_precision
from densecli.core.distributed import Distributed, joined_processes
from densecli.core.startup import started
from densecli.models.checkpoints import seeded
from densecli.models.model_card import CARD
from densecli.models.pooling import region_tokens
from densecli.models.refiner import (
    Refiner,
    RefinerShape,
    check_blocks,
    make_refiner,
    starting_blocks,
    whole_boxes,
)
from densecli.models.refiner_checkpoints import METADATA, VERSION, WEIGHTS, card_of
from densecli.models.student import DenseVFM, load_student
from densecli.shards.parted_store import open_store
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Store
from densecli.train.batch import Batch
from densecli.train.crops import CropLoader
from densecli.train.holdout import HoldoutMeasure, measured_table, measuring
from densecli.train.losses import mean, token_cosine, token_infonce
from densecli.train.optimizer import freeze
from densecli.train.recipe import Recipe
from densecli.train.refiner_config import RefinerConfig
from densecli.train.run_folder import RunFolder, lanes_to_continue
from densecli.train.static_batch import filled, without_filling
from densecli.train.terms.base import rows as rows_of
from densecli.train.trainer import Trainer


def refiner_file(run: str) -> Path:
    """Path of a Refiner's weights, given that path or the run folder that exports them."""
    return path if (path := Path(run)).is_file() else Path(RunFolder(run).export, WEIGHTS)


def train_refiner(config: RefinerConfig) -> dict[str, Any]:
    """Trains a Refiner, or continues its training.

    Args:
        config: The configuration.

    Returns:
        See `Trainer.fit`.

    Raises:
        DenseCLIError: Weights or photos are missing, or the run folder holds a different run.
    """
    start = started()
    with joined_processes(config.device) as distributed:
        return make_refiner_trainer(config, distributed).fit(start)


def make_refiner_trainer(
    config: RefinerConfig, distributed: Distributed | None = None
) -> "Trainer[RefinerTraining]":
    """Builds the trainer of a Refiner.

    Args:
        config: The configuration.
        distributed: The processes that train together; by default this one alone.

    Raises:
        DenseCLIError: See `train_refiner`.
    """
    distributed = distributed or Distributed(device=pick_device(config.device))
    precision = set_precision(config.precision, distributed.device)
    store, table, held_out = distributed.on_rank_zero(lambda: _opened(config))
    recipe = RefinerTraining(config, store, distributed.device)
    place: dict[str, Any] = {"rank": distributed.rank, "world_size": distributed.world_size}
    crops: dict[str, Any] = {"crops": config.crops, "scale": config.scale, "side": recipe.side}
    loader = CropLoader(
        store, config, lanes=lanes_to_continue(config, distributed), table=table, **crops, **place
    )
    measured = []
    if held_out:
        few = CropLoader(store, measuring(config), lanes=1, table=held_out, **crops, **place)
        measured.append(HoldoutMeasure(recipe, few, config.holdout, precision, distributed))
    return Trainer(recipe, loader, config, distributed, measured)


def _opened(config: RefinerConfig) -> tuple[Store, ShardTable, ShardTable | None]:
    """The store, the shards of its photos, and those with held-out ones. One process asks, for all."""
    store = open_store(config.store)
    table = ShardTable.of([store.images], config.key_ranges)
    return store, table, measured_table(store.images, table, config)


class RefinerTraining(Recipe[tuple[Tensor, Tensor]]):
    """A Refiner and how its tokens are aligned with those of crops (R-SC, eq. 9).

    Attributes:
        side: Side of a crop in pixels.
        grid: Tokens of a crop along a side.
    """

    model: Refiner

    def __init__(self, config: RefinerConfig, store: Store, device: torch.device) -> None:
        """Loads the network and builds a Refiner of it.

        Args:
            config: The configuration.
            store: The store.
            device: The device of the Refiner.

        Raises:
            DenseCLIError: Weights are missing, or the network has too few blocks.
        """
        self.config, self.store = config, store
        loaded, self.initial_weights = load_student(config.student, config.weights)
        encoder = check_blocks(loaded)
        shape = RefinerShape.of(
            encoder,
            config.depth,
            fc_inter=config.fc_inter,
            fc_cls=config.fc_cls,
            exogenous=config.init == "exogenous",
            late=config.late,
            pacl=config.init == "pacl",
        )

        def make() -> Refiner:
            blocks = starting_blocks(encoder, shape.depth, config.init)
            return make_refiner(encoder, shape, blocks=blocks)

        model = seeded(make, config.seed).to(device)
        native = encoder.native_side if isinstance(encoder, DenseVFM) else encoder.arch.native_side
        self.grid = config.tokens or native // encoder.patch_size
        self.side = self.grid * encoder.patch_size
        freeze(model, model.frozen_names())
        model.encoder.activation_checkpointing = bool(config.activation_checkpointing)
        self.model = model

    def resolved(self) -> dict[str, Any]:
        """See `Recipe.resolved`."""
        return {
            "canvas": self.store.canvas,
            "columns": {"images": self.store.images.key},
            "refiner_version": VERSION,
            "initial_weights": asdict(self.initial_weights),
            "random_weights": self.random_weights,
        }

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe.counts`; of tokens."""
        return {"tokens": rows_of(batch.boxes) * self.grid**2}

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The frozen network's tokens, and the Refiner's: of crops and of the same boxes in the whole photo.

        Local to global it is the other way round: the Refiner sees a crop alone, and learns the tokens of
        its box in the whole photo.
        """
        encoder = self.model.encoder
        crops = encoder.normalize(batch.targets["pixels"].permute(0, 3, 1, 2))
        if self.config.direction == "global-to-local":
            with torch.no_grad():
                teacher = encoder.dense(crops)
            student = self._refined(model, encoder.prepare(batch.images), batch.boxes, batch.batch_index)
            return teacher.flatten(2).transpose(1, 2), student
        with torch.no_grad():
            photos = encoder.dense(encoder.prepare(batch.images))
            teacher = region_tokens(photos, batch.boxes, batch.batch_index, self.grid)
        places = torch.arange(len(crops), device=crops.device)
        student = self._refined(model, crops, whole_boxes(len(crops), crops.device), places)
        return F.normalize(teacher, dim=-1), student

    def _refined(self, model: nn.Module, images: Tensor, boxes: Tensor, batch_index: Tensor) -> Tensor:
        """The Refiner's tokens of boxes; see `Recipe.filled_to`. Images are photos, or the boxes' crops."""
        rows = self.filled_to * self.config.crops
        of_crops = len(images) == len(boxes)
        images = filled(images, rows if of_crops else self.filled_to)
        tokens: Tensor = model(images, filled(boxes, rows), filled(batch_index, rows), self.grid)
        return without_filling(tokens, len(boxes))

    def loss(
        self, outputs: tuple[Tensor, Tensor], batch: Batch, counts: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The alignment of tokens; logs the mean cosine of corresponding ones."""
        (teacher, student), [tokens] = outputs, counts["tokens"]
        cosine = mean((student.detach() * teacher).sum(dim=-1), tokens)
        if self.config.align == "cosine":
            return token_cosine(student, teacher, tokens), {"cosine": cosine}
        return token_infonce(student, teacher, self.config.tau, tokens), {"cosine": cosine}

    def checkpoint_activations(self, on: bool) -> None:
        """See `Recipe.checkpoint_activations`."""
        self.model.encoder.activation_checkpointing = on

    def measured(self) -> dict[str, bool]:
        """See `Recipe.measured`."""
        return {"loss": False, "cosine": True}

    def export(self, folder: str, resolved: dict[str, Any], **about: Any) -> str:
        """Writes the Refiner's own weights, with metadata in the file, and a model card."""
        card = card_of(self.model, self.initial_weights)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.model.own_state().items()}
        path = fs.join(folder, WEIGHTS)
        fs.write_atomic(path, safetensors.torch.save(tensors, metadata={METADATA: json.dumps(card)}))
        fields = ("student", "canvas", "store", "total_steps", "initial_weights", "random_weights")
        card = {**card, **{name: resolved[name] for name in fields}, **about}
        fs.write_atomic(fs.join(folder, CARD), json.dumps(card, indent=2).encode())
        return path
