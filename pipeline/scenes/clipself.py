"""CLIPSelf with live crops, for `demo --pretrain`: a CLIP's own [CLS] of each crop teaches its dense map."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from models.dense import DenseCLIP
from models.pooling import region_pool
from shards.geometry import Canvas
from shards.regions import GridPlan, cells_of_visit, view_of


@dataclass(frozen=True, kw_only=True)
class ClipSelfConfig:
    steps: int = 900
    batch_size: int = 24
    lr: float = 6e-4
    weight_decay: float = 0.1
    max_cells: int = 12
    seed: int = 0


def train_clipself(
    student: DenseCLIP,
    images: np.ndarray,
    config: ClipSelfConfig,
    on_step: Callable[[float], None] = lambda loss: None,
) -> list[float]:
    """Train `student` in place on square images (N, S, S, 3) uint8: 1 - cos(region, its crop's [CLS]).

    The teacher is the student as it was (CLIPSelf, eq. 1). The grid of an image is one pair of CLIPSelf's
    set, `max_cells` of its cells at most. Returns the loss of every step.
    """
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    frozen = student.frozen_names()
    trained = [p for name, p in student.named_parameters() if name not in frozen]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.steps, pct_start=0.06
    )
    grid = GridPlan("clipself").boxes([0, 0, 1, 1])
    rng = np.random.default_rng(config.seed)
    canvas = Canvas(images.shape[1])
    losses = []
    for step in range(config.steps):
        rows = rng.choice(len(images), config.batch_size, replace=False)
        boxes = []
        for row in rows:
            cells = grid.view(view_of(str(row), step, grid.n_views))
            boxes.append(grid.boxes[cells[cells_of_visit(str(row), step, len(cells), config.max_cells)]])
        crops = np.stack(
            [
                canvas.crop(images[r], b, canvas.size)
                for r, each in zip(rows, boxes, strict=True)
                for b in each
            ]
        )
        owner = torch.tensor([i for i, each in enumerate(boxes) for _ in each])
        with torch.no_grad():
            target = F.normalize(teacher.encode_image(teacher.normalize(_channels_first(crops))), dim=-1)
        dense = student(student.normalize(_channels_first(images[rows])))
        region = region_pool(dense, torch.from_numpy(np.concatenate(boxes)), owner)
        loss = 1 - (region * target).sum(-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        on_step(losses[-1])
    return losses


def _channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)
