"""Self-supervised training of the generated world's VFM: two windows of a scene agree, token by token."""

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
    """scenes: how many, and visits to them in all. side: of a view in pixels. window: the least share of a
    scene's side that a view shows, more than half of it, so that two views always have a part in common.
    points: tokens of the common part, in each direction. prototypes: clusters that tokens are assigned to.
    tau: the student's temperature; eps: of the assignment. momentum: of the teacher.
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
        return self.visits // self.batch_size


class Clustered(nn.Module):
    """A VFM and the prototypes of its tokens: `forward` gives cosines (B, K, h, w)."""

    def __init__(self, vfm: VFM, prototypes: int) -> None:
        super().__init__()
        self.vfm = vfm
        self.prototypes = nn.Parameter(torch.randn(prototypes, vfm.net.embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) pixels in 0..255."""
        tokens = self.vfm(self.vfm.prepare(pixels, self.vfm.arch.patch))
        return torch.einsum("bchw,kc->bkhw", tokens, F.normalize(self.prototypes, dim=1))


def sinkhorn(cosines: Tensor, eps: float, rounds: int = 3) -> Tensor:
    """(N, K) cosines -> (N, K) assignments: rows sum to 1, clusters are as frequent as each other.

    SwAV (Caron et al. 2020, eq. 3).
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
    """Train a VFM in place on square images (N, S, S, 3) uint8, without labels or captions.

    Sees two windows at a time of one of the first `config.scenes`, of other place, size and colour. A slow
    copy of the network assigns the tokens of the common part of one to prototypes, equally often each; the
    network finds the same assignments in the other window, and the other way round: SwAV's swapped prediction
    token by token, as in Leopart (Ziegler and Asano 2022), with iBOT's and DINOv2's momentum teacher. Returns
    the loss of every step.
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
        seen = [student(view.pixels) for view in views]
        with torch.no_grad():
            said = [teacher(view.pixels) for view in views]
        one, other = (view.window for view in views)
        loss = _swapped(said[0], one, seen[1], other, config) + _swapped(said[1], other, seen[0], one, config)
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
    """pixels: (B, 3, S, S) in 0..255. window: (B, 4) xyxy of the scene that they show, normalised."""

    pixels: Tensor
    window: Tensor

    @classmethod
    def of(cls, scenes: Tensor, config: SelfSupConfig, generator: torch.Generator) -> "View":
        """A window of each scene (B, 3, S, S), in another light."""

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
    """(B, C, h, w), a normalised box of each (B, 4) -> (B, C, side, side) by RoIAlign."""
    rois = torch.cat([torch.arange(len(boxes)).float()[:, None], boxes * maps.shape[-1]], dim=1)
    return roi_align(maps, rois, side, spatial_scale=1.0, sampling_ratio=2, aligned=True)


def _swapped(said: Tensor, said_of: Tensor, seen: Tensor, seen_of: Tensor, config: SelfSupConfig) -> Tensor:
    """Cross entropy of the assignments of one view's tokens (B, K, h, w) and the other's prediction of them,
    where both windows (B, 4) show the same."""
    common = torch.cat(
        [torch.maximum(said_of, seen_of)[:, :2], torch.minimum(said_of, seen_of)[:, 2:]], dim=1
    )

    def tokens(cosines: Tensor, window: Tensor) -> Tensor:
        origin, size = window[:, :2].repeat(1, 2), (window[:, 2:] - window[:, :2]).repeat(1, 2)
        return cut(cosines, (common - origin) / size, config.points).permute(0, 2, 3, 1).flatten(0, 2)

    q = sinkhorn(tokens(said, said_of), config.eps)
    log_p = (tokens(seen, seen_of) / config.tau).log_softmax(dim=1)
    return -(q * log_p).sum(1).mean()
