"""Token maps, kept as factors: of a VFM (`gram`, for DeCLIP) or of the CLIP itself (`self`, for SC-*)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densecli.models.checkpoints import load_model
from densecli.models.flops import Forward, dense_forward, vfm_forward
from densecli.models.vfm import load_vfm
from densecli.models.vfms import find_vfm
from densecli.pipeline.teachers.base import Cost, Photo, clip_spec, weights_id, weights_info
from densecli.shards.codecs import Arrays, Errors, LowRank


@dataclass(frozen=True, kw_only=True)
class GramConfig:
    """A VFM, not loaded yet.

    name: that of a VFM. weights: a path or random:SEED. student_patch: the stride of the students to come;
    the VFM sees the canvas on the side that gives it the same token grid. codec: how the factors are stored.
    """

    name: str
    weights: str
    student_patch: int = 16
    codec: LowRank = field(default_factory=LowRank)

    @property
    def of_regions(self) -> bool:
        return False

    def spec(self) -> dict[str, Any]:
        """Digests the weights; raises DenseCLIError where they are missing."""
        arch = find_vfm(self.name)
        return {
            "producer": "gram/2",
            "architecture": arch.name,
            "weights": weights_id(self.weights),
            "preprocessing": {
                "mean": list(arch.mean),
                "std": list(arch.std),
                "input": f"round(canvas / {self.student_patch}) * {arch.patch}",
            },
            "target": {"name": "gram", "student_patch": self.student_patch},
            "codec": self.codec.spec,
        }

    def info(self) -> dict[str, Any]:
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        return map_cost(vfm_forward(self.name, photo.canvas.size, self.student_patch), self.codec)

    def load(self, device: str) -> "TokenTeacher":
        model = load_vfm(self.name, self.weights, device)
        return TokenTeacher(
            name=self.name,
            device=device,
            codec=self.codec,
            look=lambda pictures: model(model.prepare(pictures, self.student_patch)),
        )


@dataclass(frozen=True, kw_only=True)
class SelfConfig:
    """The original CLIP as its own student's teacher, not loaded yet: SC-*'s side of spatial correlation.

    model: a model's name or alias. weights: a path or random:SEED. mode: how its last block is read out, see
    `DenseCLIP`. codec: how the factors are stored.
    """

    model: str
    weights: str
    mode: str = "value"
    codec: LowRank = field(default_factory=LowRank)

    @property
    def name(self) -> str:
        return f"self-{self.model}"

    @property
    def of_regions(self) -> bool:
        return False

    def spec(self) -> dict[str, Any]:
        """Digests the weights; raises DenseCLIError where they are missing."""
        return {
            **clip_spec(self.model, self.weights, "nearest multiple of the patch"),
            "producer": "self/2",
            "target": {"name": "self", "mode": self.mode},
            "codec": self.codec.spec,
        }

    def info(self) -> dict[str, Any]:
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        return map_cost(dense_forward(self.model, photo.canvas.size, self.mode), self.codec)

    def load(self, device: str) -> "TokenTeacher":
        model, _ = load_model(self.model, self.weights, device)
        dense = partial(model.dense, mode=self.mode)
        return TokenTeacher(
            name=self.name,
            device=device,
            codec=self.codec,
            look=lambda pictures: torch.nn.functional.normalize(
                dense(model.prepare(pictures)).float(), dim=1
            ),
        )


class TokenTeacher:
    """A network that gives a map of unit tokens for a canvas, of which a factor is kept."""

    def __init__(self, *, name: str, device: str, codec: LowRank, look: Callable[[Tensor], Tensor]) -> None:
        """look: (B, 3, S, S) uint8 -> (B, C, h, w), unit norm per token."""
        self.name = name
        self.device = torch.device(device)
        self.codec = codec
        self.look = look

    def inputs(self, photo: Photo) -> np.ndarray:
        """(1, S, S, 3) uint8: the canvas."""
        return photo.padded()[None]

    def target(self, photo: Photo, seen: list[Tensor]) -> np.ndarray:
        """(h, w, C) float32 unit tokens."""
        return seen[0].permute(1, 2, 0).cpu().numpy()

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """(h, w, C) unit tokens -> the codec's arrays, `grid` int32 (2,) = h, w, and `bound` float32 (2,):
        the `row_norm` and `max_abs` of this map's error, which bound what it does to a loss."""
        height, width, _ = target.shape
        arrays, error = self.codec.encode(target.reshape(height * width, -1))
        bound = np.array([error["row_norm"], error["max_abs"]], np.float32)
        return {**arrays, "grid": np.array([height, width], np.int32), "bound": bound}, error


def map_cost(forward: Forward, codec: LowRank) -> Cost:
    """What a photo costs whose one picture gives a map, kept by `codec` as a `TokenTeacher` does."""
    channels, height, width = forward.shape
    about = {"grid": np.zeros(2, np.int32), "bound": np.zeros(2, np.float32)}
    stored = {**codec.blank((height * width, channels)), **about}
    return Cost(stored=stored, once=forward.flops, visit=forward.flops)
