"""Self-supervised training of the generated world's VFM: two views of a scene must agree, token by token."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from densecli.models.vfm import VFM
from densecli.train.optimizer import decay_groups


@dataclass(frozen=True, kw_only=True)
class SelfSupConfig:
    """Settings of the training.

    Attributes:
        scenes: Number of scenes to train on.
        visits: Number of scenes seen, including repetitions.
        side: Side of a view in pixels.
        window: Smallest share of a scene's side in a view. More than half, so that two views overlap.
        points: Number of tokens along each side of the overlap that are compared.
        batch_size: Scenes in a batch.
        lr: Peak learning rate.
        weight_decay: Weight decay of AdamW.
        warmup: Share of the steps over which the learning rate rises.
        prototypes: Number of clusters of tokens.
        tau: Softmax temperature of the student.
        eps: Softmax temperature of the assignment.
        momentum: Momentum of the teacher, a moving average of the student.
        seed: Seed of weights, order and views.
    """

    scenes: int = 12_000
    visits: int = 76_800
    side: int = 72
    window: float = 0.55
    points: int = 6
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    prototypes: int = 128
    tau: float = 0.1
    eps: float = 0.05
    momentum: float = 0.99
    seed: int = 0

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return self.visits // self.batch_size


class Clustered(nn.Module):
    """A VFM with K prototypes for its tokens."""

    def __init__(self, vfm: VFM, prototypes: int) -> None:
        super().__init__()
        self.vfm = vfm
        self.prototypes = nn.Parameter(torch.randn(prototypes, vfm.net.embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) in 0..255 -> cosines of tokens and prototypes (B, K, h, w)."""
        tokens = self.vfm(self.vfm.prepare(pixels, self.vfm.arch.patch))
        return torch.einsum("bchw,kc->bkhw", tokens, F.normalize(self.prototypes, dim=1))


def sinkhorn(cosines: Tensor, eps: float, rounds: int = 3) -> Tensor:
    """Assigns tokens to clusters of equal size (SwAV, Caron et al. 2020, eq. 3).

    Args:
        cosines: (N, K) between tokens and prototypes.
        eps: Softmax temperature.
        rounds: Number of normalisations of columns and rows.

    Returns:
        (N, K) assignments; rows sum to 1.
    """
    q = ((cosines - cosines.max()) / eps).exp()
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q


def train_vfm(
    vfm: VFM,
    images: np.ndarray,
    config: SelfSupConfig,
    on_step: Callable[[float], None] = lambda loss: None,
) -> list[float]:
    """Trains a VFM in place, without labels or captions.

    Each scene gives two views of different position, size and colour. A moving average of the network assigns
    tokens in their overlap to prototypes, each prototype equally often. The network predicts the assignments
    of one view from the other, and vice versa. This is SwAV's swapped prediction for each token, as in
    Leopart (Ziegler and Asano 2022), with the momentum teacher of iBOT and DINOv2.

    Args:
        vfm: The network.
        images: Square scenes (N, S, S, 3) uint8.
        config: Settings.
        on_step: Called with the loss of each step.

    Returns:
        The loss of every step.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = Clustered(vfm, config.prototypes)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW(decay_groups(student, config.weight_decay), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.steps, pct_start=config.warmup
    )
    losses = []
    for _ in range(config.steps):
        rows = torch.randint(min(len(images), config.scenes), (config.batch_size,), generator=generator)
        scenes = torch.from_numpy(images[rows.numpy()]).permute(0, 3, 1, 2).float()
        views = [View.of(scenes, config, generator) for _ in range(2)]
        predictions = [student(view.pixels) for view in views]
        with torch.no_grad():
            targets = [teacher(view.pixels) for view in views]
        windows = [view.window for view in views]
        loss = _swapped_loss(targets[0], windows[0], predictions[1], windows[1], config)
        loss = loss + _swapped_loss(targets[1], windows[1], predictions[0], windows[0], config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 1 - config.momentum)
        losses.append(loss.item() / 2)
        on_step(losses[-1])
    vfm.load_state_dict(teacher.vfm.state_dict())
    return losses


@dataclass(frozen=True, kw_only=True)
class View:
    """A view of each scene in a batch.

    Attributes:
        pixels: (B, 3, S, S) in 0..255.
        window: (B, 4) xyxy, the part of the scene in the view, normalised.
    """

    pixels: Tensor
    window: Tensor

    @classmethod
    def of(cls, scenes: Tensor, config: SelfSupConfig, generator: torch.Generator) -> "View":
        """A random window of each scene (B, 3, S, S), in random light."""

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.rand(len(scenes), *shape, generator=generator) * (high - low) + low

        side = uniform(config.window, 1, 1)
        corner = uniform(0, 1, 2) * (1 - side)
        window = torch.cat([corner, corner + side], dim=1)
        pixels = cut(scenes, window, config.side)
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        light = uniform(0.7, 1.3, 1, 1, 1) * uniform(0.85, 1.15, 3, 1, 1)
        pixels = ((pixels - mean) * uniform(0.7, 1.3, 1, 1, 1) + mean) * light
        return cls(pixels=pixels.clamp(0, 255), window=window)


def cut(maps: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Cuts a normalised box (B, 4) out of each map (B, C, h, w) by RoIAlign -> (B, C, side, side)."""
    rois = torch.cat([torch.arange(len(boxes)).float()[:, None], boxes * maps.shape[-1]], dim=1)
    cells: Tensor = roi_align(maps, rois, side, spatial_scale=1.0, sampling_ratio=2, aligned=True)
    return cells


def _swapped_loss(
    target: Tensor, target_window: Tensor, prediction: Tensor, window: Tensor, config: SelfSupConfig
) -> Tensor:
    """Cross entropy of one view's assignments and the other's prediction, (B, K, h, w), in the overlap."""
    common = torch.cat(
        [torch.maximum(target_window, window)[:, :2], torch.minimum(target_window, window)[:, 2:]], dim=1
    )

    def tokens(cosines: Tensor, window: Tensor) -> Tensor:
        origin, size = window[:, :2].repeat(1, 2), (window[:, 2:] - window[:, :2]).repeat(1, 2)
        return cut(cosines, (common - origin) / size, config.points).permute(0, 2, 3, 1).flatten(0, 2)

    q = sinkhorn(tokens(target, target_window), config.eps)
    log_p = (tokens(prediction, window) / config.tau).log_softmax(dim=1)
    return -(q * log_p).sum(1).mean()
