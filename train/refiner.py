"""Trains a Refiner: a region's tokens in the whole photo learn to match those of its crop (R-SC)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from densecli.core import fs
from densecli.core.device import pick_device, set_precision
from densecli.core.distributed import Distributed, joined_processes
from densecli.core.errors import DenseCLIError
from densecli.core.startup import started
from densecli.models.checkpoints import load_model, seeded
from densecli.models.model_card import CARD
from densecli.models.refiner import METADATA, Refiner, card_of, make_refiner
from densecli.models.vfms import is_vfm
from densecli.shards.store import Store
from densecli.train.crops import CropLoader
from densecli.train.dataloader import Batch
from densecli.train.losses import mean, token_infonce
from densecli.train.optimizer import freeze
from densecli.train.recipe import Recipe
from densecli.train.refiner_config import RefinerConfig
from densecli.train.run_folder import RunFolder
from densecli.train.trainer import Trainer

WEIGHTS = "refiner.safetensors"


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
    set_precision(config.precision, distributed.device)
    store = Store.open(config.store)
    recipe = RefinerTraining(config, store, distributed.device)
    loader = CropLoader(
        store,
        config,
        crops=config.crops,
        side=recipe.side,
        rank=distributed.rank,
        world_size=distributed.world_size,
    )
    return Trainer(recipe, loader, config, distributed)


class RefinerTraining(Recipe[tuple[Tensor, Tensor]]):
    """A Refiner with token InfoNCE as its loss (R-SC)."""

    model: Refiner

    def __init__(self, config: RefinerConfig, store: Store, device: torch.device) -> None:
        """Loads the CLIP and builds a Refiner of it.

        Args:
            config: The configuration.
            store: The store.
            device: The device of the Refiner.

        Raises:
            DenseCLIError: Where weights are missing, the student is no CLIP, or it has too few blocks.
        """
        self.config, self.store = config, store
        if is_vfm(config.student):
            raise DenseCLIError(
                f"{config.student} is a vision foundation model; a Refiner is made of a CLIP.",
                hint="Choose a CLIP with --student, such as eva02-b16.",
            )
        clip, self.initial_weights = load_model(config.student, config.weights)
        self.side = clip.arch.native_side
        model = seeded(lambda: make_refiner(clip, depth=config.depth), config.seed).to(device)
        freeze(model, model.frozen_names())
        model.clip.activation_checkpointing = config.activation_checkpointing
        self.model = model

    def resolved(self) -> dict[str, Any]:
        """See `Recipe.resolved`."""
        return {
            "canvas": self.store.canvas,
            "columns": {"images": self.store.images.key},
            "initial_weights": asdict(self.initial_weights),
            "random_weights": self.random_weights,
        }

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe.counts`; counts tokens."""
        tokens = len(batch.boxes) * (self.side // self.model.clip.patch_size) ** 2
        return {"tokens": torch.tensor([tokens], device=batch.boxes.device)}

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The frozen CLIP's tokens of the crops, and the Refiner's of the same boxes in the whole photo."""
        clip = self.model.clip
        with torch.no_grad():
            teacher = clip.dense(clip.normalize(batch.targets["pixels"].permute(0, 3, 1, 2)))
        grid = self.side // clip.patch_size
        student = model(clip.prepare(batch.images), batch.boxes, batch.batch_index, grid)
        return teacher.flatten(2).transpose(1, 2), student

    def loss(
        self, outputs: tuple[Tensor, Tensor], batch: Batch, counts: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Token InfoNCE; logs the mean cosine of corresponding tokens."""
        (teacher, student), [tokens] = outputs, counts["tokens"]
        cosine = mean((student.detach() * teacher).sum(dim=-1), tokens)
        return token_infonce(student, teacher, self.config.tau, tokens), {"cosine": cosine}

    def export(self, folder: str, resolved: dict[str, Any]) -> str:
        """Writes the Refiner's own weights, with metadata in the file, and a model card."""
        card = card_of(self.model, self.initial_weights)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.model.own_state().items()}
        path = fs.join(folder, WEIGHTS)
        fs.write_atomic(path, safetensors.torch.save(tensors, metadata={METADATA: json.dumps(card)}))
        fields = ("student", "canvas", "store", "total_steps", "initial_weights", "random_weights")
        about = {name: resolved[name] for name in fields}
        fs.write_atomic(fs.join(folder, CARD), json.dumps({**card, **about}, indent=2).encode())
        return path
