"""Training a Refiner: in an image, a region's tokens become those that its crop has by itself."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from densecli.core import fs
from densecli.core.device import pick_device
from densecli.core.distributed import Distributed, joined_processes
from densecli.models.checkpoints import load_model, seeded
from densecli.models.model_card import CARD
from densecli.models.refiner import METADATA, Refiner, card_of, make_refiner
from densecli.shards.store import Store
from densecli.train.config import RefinerConfig
from densecli.train.crops import CropLoader
from densecli.train.dataloader import Batch
from densecli.train.losses import mean, token_infonce
from densecli.train.optim import freeze
from densecli.train.run_folder import RunFolder
from densecli.train.trainer import Trainer

WEIGHTS = "refiner.safetensors"


def refiner_file(run: str) -> Path:
    """The file of a Refiner that is named itself, or by the run that exports it."""
    return path if (path := Path(run)).is_file() else Path(RunFolder(run).export, WEIGHTS)


def train_refiner(config: RefinerConfig) -> dict[str, Any]:
    """Trains, or continues, the run of `config`; returns what `train.distillation.train` does."""
    with joined_processes(config.device) as ranks:
        return RefinerTraining(config, ranks).fit()


class RefinerTraining(Trainer):
    config: RefinerConfig
    model: Refiner

    def __init__(self, config: RefinerConfig, ranks: Distributed | None = None) -> None:
        """See `Trainer`."""
        ranks = ranks or Distributed(device=pick_device(config.device))
        clip, info = load_model(config.student, config.weights)
        self.side = clip.arch.native_side
        store = Store.open(config.store)
        part = {"rank": ranks.rank, "world_size": ranks.world_size}
        loader = CropLoader(store, config, crops=config.crops, side=self.side, **part)
        super().__init__(config, store, loader, ranks)
        model = seeded(lambda: make_refiner(clip, depth=config.depth), config.seed).to(self.device)
        freeze(model, model.frozen_names())
        model.clip.activation_checkpointing = config.activation_checkpointing
        self.learn(model, info)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """See `Trainer.counts`; of tokens."""
        tokens = len(batch.boxes) * (self.side // self.model.clip.patch_size) ** 2
        return {"tokens": torch.tensor([tokens], device=batch.boxes.device)}

    def loss(self, batch: Batch, counts: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Token InfoNCE of the Refiner on the whole photo against the frozen CLIP on the real crop; see
        `Trainer.loss`."""
        clip, [tokens] = self.model.clip, counts["tokens"]
        grid = self.side // clip.patch_size
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                teacher = clip.dense(clip.normalize(batch.targets["pixels"].permute(0, 3, 1, 2)))
            student = self.forward(clip.prepare(batch.images), batch.boxes, batch.batch_index, grid)
        teacher = teacher.flatten(2).transpose(1, 2)
        cosine = mean((student.detach() * teacher).sum(dim=-1), tokens)
        return token_infonce(student, teacher, self.config.tau, tokens), {"cosine": cosine}

    def export(self, folder: str) -> str:
        """The Refiner's own weights, which say in the file itself what they are, and a card."""
        card = card_of(self.model, self.initial_weights)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.model.own_state().items()}
        path = fs.join(folder, WEIGHTS)
        fs.write_atomic(path, safetensors.torch.save(tensors, metadata={METADATA: json.dumps(card)}))
        resolved = self.resolved()
        about = {
            name: resolved[name]
            for name in ("student", "canvas", "store", "total_steps", "initial_weights", "random_weights")
        }
        fs.write_atomic(fs.join(folder, CARD), json.dumps({**card, **about}, indent=2).encode())
        return path
