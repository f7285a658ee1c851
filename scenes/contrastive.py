"""Contrastive training of a small CLIP, with all images and captions in memory."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.models.dense import DenseCLIP
from densecli.train.optimizer import decay_groups


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Settings of a contrastive training.

    Attributes:
        pairs: Number of image-caption pairs seen, including repetitions.
        batch_size: Pairs in a batch.
        lr: Peak learning rate.
        weight_decay: Weight decay of AdamW.
        warmup: Share of the steps over which the learning rate rises.
        seed: Seed of the order of the pairs.
    """

    pairs: int = 160_000
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.1
    warmup: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return self.pairs // self.batch_size


def clip_loss(image: Tensor, text: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """CLIP's symmetric InfoNCE loss (Radford et al. 2021), with equal captions as additional positives.

    In a small world many captions are identical; such pairs must not be negatives of each other.

    Args:
        image: Unit features (B, C).
        text: Unit features (B, C).
        scale: Exponentiated logit scale, a scalar.
        same: (B, B) bool, whether two captions are the same.
    """
    logits = scale * image @ text.T
    target = same.float() / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _batches(n: int, config: ContrastiveConfig) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(config.seed)
    order = np.concatenate([rng.permutation(n) for _ in range(math.ceil(config.pairs / n))])
    for step in range(config.steps):
        yield order[step * config.batch_size : (step + 1) * config.batch_size]


def train_contrastive(
    model: DenseCLIP,
    images: np.ndarray,
    captions: list[str],
    *,
    config: ContrastiveConfig,
    on_step: Callable[[float], None] = lambda loss: None,
) -> list[float]:
    """Trains a CLIP in place.

    Args:
        model: The network.
        images: (N, H, W, 3) uint8.
        captions: One for each image.
        config: Settings; the same seed gives the same batches.
        on_step: Called with the loss of each step.

    Returns:
        The loss of every step.
    """
    optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.lr, betas=(0.9, 0.98))
    warm = max(int(config.warmup * config.steps), 1)

    def factor(step: int) -> float:
        return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / config.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    tokens = model.tokenize(captions)
    losses = []
    for rows in _batches(len(images), config):
        image, text, scale = _forward(model, images[rows], tokens[rows])
        same = (tokens[rows][:, None] == tokens[rows][None]).all(-1)
        loss = clip_loss(image, text, scale, same)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.clip.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        on_step(losses[-1])
    return losses


@torch.no_grad()
def retrieval_accuracy(model: DenseCLIP, images: np.ndarray, captions: list[str]) -> float:
    """Percentage of images (N, H, W, 3) whose best caption among all N equals their own."""
    image, text, _ = _forward(model, images, model.tokenize(captions))
    best: list[int] = (image @ text.T).argmax(1).tolist()
    return 100 * sum(captions[i] == captions[j] for i, j in enumerate(best)) / len(captions)


def _forward(model: DenseCLIP, images: np.ndarray, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pixels = model.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
    image, text, scale = model.clip(pixels, tokens)
    return image, text, scale
