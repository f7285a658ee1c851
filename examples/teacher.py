"""A teacher of a new kind of target: the mean colour of each patch, for its correlations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.pipeline.config import BuildConfig
from densecli.pipeline.teachers import TEACHERS, Cost, Photo, TeacherFamily
from densecli.shards.codecs import Arrays, Errors, Rows
from densecli.shards.kinds import KINDS, TargetKind

KINDS.add(
    "colours",
    TargetKind(name="colours", prefix="colours-", layout="map", read_by=("spatial", "context")),
    help="The mean colour of each patch, as unit vectors.",
)


@dataclass(frozen=True, kw_only=True)
class ColoursConfig:
    """The teacher before it is loaded: what a worker is sent, and what the column's key depends on."""

    patch: int
    codec: Rows

    @property
    def name(self) -> str:
        return f"colours-p{self.patch}"

    def spec(self) -> dict:
        target = {"name": "colours", "patch": self.patch}
        return {"producer": "colours/1", "target": target, "codec": self.codec.spec}

    def info(self) -> dict:
        return {"random_weights": False}

    def cost(self, photo: Photo) -> Cost:
        side = photo.canvas.size // self.patch
        stored = {**self.codec.blank((side * side, 4)), "grid": np.zeros(2, np.int32)}
        return Cost(stored=stored, once=3 * photo.canvas.size**2, visit=3 * photo.canvas.size**2)

    def load(self, device: str) -> "ColoursTeacher":
        return ColoursTeacher(self, device)


class ColoursTeacher:
    """The teacher on its device."""

    def __init__(self, config: ColoursConfig, device: str) -> None:
        self.config, self.name, self.device = config, config.name, torch.device(device)

    def inputs(self, photo: Photo) -> np.ndarray:
        return photo.padded()[None]

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 -> (B, 4, h, w): red, green, blue and a constant, unit norm."""
        colours = F.avg_pool2d(inputs.float() / 127.5 - 1, self.config.patch)
        return F.normalize(torch.cat([colours, torch.full_like(colours[:, :1], 0.5)], dim=1), dim=1)

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> list[Tensor]:
        return [of_photo[0].permute(1, 2, 0) for of_photo in outputs]

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        height, width, channels = target.shape
        arrays, error = self.config.codec.encode(target.reshape(-1, channels))
        return {**arrays, "grid": np.array([height, width], np.int32)}, error


def configure(model: str, settings: BuildConfig) -> ColoursConfig:
    return ColoursConfig(patch=int(model.removeprefix("p")), codec=Rows(dtype=settings.codec))


TEACHERS.add(
    "colours",
    TeacherFamily(
        kind="colours",
        models=lambda: ["p8", "p12", "p16"],
        configure=configure,
        weights=lambda model: {},
    ),
    help="The mean colour of each patch of 8, 12 or 16 pixels.",
)
