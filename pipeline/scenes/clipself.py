"""CLIPSelf with live crops: a CLIP's own [CLS] of each crop teaches its dense map. Only `demo --pretrain` uses it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from models.dense import DenseCLIP
from models.pooling import region_pool
from shards.regions import GridPlan, cells_of_visit, view_of
from train.optim import adamw, freeze, learning_rate, set_learning_rate


@dataclass(frozen=True, kw_only=True)
class ClipSelfConfig:
    steps: int = 350
    batch_size: int = 24
    lr: float = 3e-4
    warmup_steps: int = 20
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    max_cells: int = 12
    seed: int = 0


def crop_square(image: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """The pixels of a normalised xyxy box: longest side to `side`, aspect kept, black around it. (side, side, 3) uint8."""
    height, width = image.shape[:2]
    left, top, right, bottom = (box * np.array([width, height, width, height])).round().astype(int)
    crop = Image.fromarray(image[top : max(bottom, top + 1), left : max(right, left + 1)])
    scale = side / max(crop.size)
    w, h = max(round(crop.width * scale), 1), max(round(crop.height * scale), 1)
    square = Image.new("RGB", (side, side))
    square.paste(crop.resize((w, h), Image.Resampling.BICUBIC), ((side - w) // 2, (side - h) // 2))
    return np.asarray(square)


def train_clipself(
    student: DenseCLIP,
    images: np.ndarray,
    config: ClipSelfConfig,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train `student` in place on square images (N, S, S, 3) uint8: 1 - cos(region, own [CLS] of the crop) (CLIPSelf, eq. 1).

    The grid of an image is one pair of CLIPSelf's set, `max_cells` of its cells at most. Returns the loss of every step.
    """
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    freeze(student, student.frozen_names())
    optimizer = adamw(student, weight_decay=config.weight_decay, betas=config.betas)
    grid = GridPlan("clipself").boxes([0, 0, 1, 1])
    rng = np.random.default_rng(config.seed)
    losses = []
    student.train()
    for step in range(config.steps):
        rows = rng.choice(len(images), config.batch_size, replace=False)
        boxes = []
        for row in rows:
            cells = grid.view(view_of(str(row), step, grid.n_views))
            boxes.append(grid.boxes[cells[cells_of_visit(str(row), step, len(cells), config.max_cells)]])
        crops = np.stack(
            [crop_square(images[r], b, images.shape[1]) for r, each in zip(rows, boxes, strict=True) for b in each]
        )
        owner = torch.tensor([i for i, each in enumerate(boxes) for _ in each])
        with torch.no_grad():
            target = F.normalize(teacher.encode_image(teacher.normalize(_channels_first(crops))), dim=-1)
        dense = student(student.normalize(_channels_first(images[rows])))
        region = region_pool(dense, torch.from_numpy(np.concatenate(boxes)), owner)
        loss = 1 - (region * target).sum(-1).mean()
        set_learning_rate(
            optimizer,
            learning_rate(step, peak=config.lr, warmup_steps=config.warmup_steps, total_steps=config.steps),
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        on_step(step + 1, losses[-1])
    student.eval()
    return losses


def _channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)
