"""The teacher of `cls`: a CLIP's image embedding of the whole photo, which zero-shot classification reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.models.checkpoints import load_model
from densecli.models.flops import image_forward
from densecli.models.registry import is_clip, resolve
from densecli.pipeline.teachers.base import (
    Cost,
    Photo,
    clip_names,
    clip_spec,
    weights_for,
    weights_info,
)
from densecli.pipeline.teachers.families import TEACHERS, TeacherFamily
from densecli.shards.codecs import Arrays, Errors, Rows
from densecli.shards.geometry import RESAMPLE
from densecli.shards.kinds import KINDS
from densecli.shards.specs import ColumnInfo, TeacherSpec


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """A CLIP that embeds whole photos, before it is loaded.

    Attributes:
        model: A model's name or alias.
        weights: A path or random:SEED.
        codec: How the embeddings are stored.
    """

    model: str
    weights: str
    codec: Rows = field(default_factory=Rows)

    @property
    def name(self) -> str:
        """The column's name."""
        return f"{KINDS['cls'].prefix}{self.model}"

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights."""
        return {
            **clip_spec(self.model, self.weights, "photo"),
            "producer": "cls/1",
            "target": {
                "name": "cls",
                "crop": {
                    "side": resolve(self.model).native_side,
                    "context": 1.0,
                    "fit": "longest side, centred on black",
                    "resample": RESAMPLE.name.lower(),
                },
            },
            "codec": self.codec.spec,
        }

    def info(self) -> ColumnInfo:
        """See `TeacherConfig.info`."""
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        embed = image_forward(self.model)
        return Cost(stored=self.codec.blank((1, embed.shape[0])), once=embed.flops, visit=embed.flops)

    def load(self, device: str) -> ImageTeacher:
        """See `TeacherConfig.load`."""
        return ImageTeacher(self, device)


class ImageTeacher:
    """The CLIP on its device."""

    def __init__(self, config: ImageConfig, device: str) -> None:
        self.config = config
        self.name = config.name
        self.device = torch.device(device)
        self.model, _ = load_model(config.model, config.weights, device)
        self.side = self.model.arch.native_side

    def inputs(self, photo: Photo) -> np.ndarray:
        """Returns the photo, (1, side, side, 3) uint8: the crop of a box that covers it."""
        height, width = photo.image.shape[:2]
        box = photo.canvas.valid_box(width, height)
        return photo.once(("photo", self.side), lambda: photo.canvas.crop(photo.image, box, self.side)[None])

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the embeddings (B, C), unit norm, of photos (B, 3, side, side)."""
        return F.normalize(self.model.encode_image(self.model.normalize(inputs)).float(), dim=1)

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns the embedding of each photo, (1, C) float32."""
        return list(outputs)

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """Returns the codec's arrays of one row."""
        return self.config.codec.encode(target)


TEACHERS.add(
    "cls",
    TeacherFamily(
        kind="cls",
        models=clip_names,
        has_model=is_clip,
        configure=lambda model, settings: ImageConfig(
            model=model, weights=weights_for(model, settings), codec=Rows(dtype=settings.codec)
        ),
    ),
    help="A CLIP's image embedding of the whole photo.",
    needs="weights of a CLIP",
)
