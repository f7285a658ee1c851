"""The teacher of `cls`: a CLIP's image embedding of the whole photo, which zero-shot classification uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from densecli.models.flops import image_forward
from densecli.models.registry import is_clip
from densecli.pipeline.teachers.base import (
    Cost,
    Photo,
    clip_names,
    clip_spec,
    weights_for,
    weights_info,
)
from densecli.pipeline.teachers.crops import CropEmbedder, crop_spec
from densecli.pipeline.teachers.families import TEACHERS, TeacherFamily
from densecli.shards.codecs import Arrays, Errors, Rows
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
                "crop": crop_spec(self.model),
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


class ImageTeacher(CropEmbedder):
    """Embeds whole photos, as crops of boxes that cover them."""

    def __init__(self, config: ImageConfig, device: str) -> None:
        super().__init__(config.name, config.model, config.weights, device)
        self.config = config

    def inputs(self, photo: Photo) -> np.ndarray:
        """Returns the photo, (1, side, side, 3) uint8: the crop of a box that covers it."""
        height, width = photo.image.shape[:2]
        box = photo.canvas.valid_box(width, height)
        return photo.once(("photo", self.side), lambda: photo.canvas.crop(photo.image, box, self.side)[None])

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
