"""The teacher of `crops`: a CLIP's [CLS] embedding of the crop of each box, for K views (CLIPSelf)."""

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
from densecli.pipeline.config import BuildConfig
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
from densecli.shards.region_plans import region_plan
from densecli.shards.regions import stored_views
from densecli.shards.specs import ColumnInfo, CropSpec, TeacherSpec


@dataclass(frozen=True, kw_only=True)
class CropsConfig:
    """A CLIP that embeds crops, before it is loaded.

    Attributes:
        model: A model's name or alias.
        weights: A path or random:SEED.
        views: K, the number of a photo's views whose boxes are cropped. Each box costs a forward pass.
        seed: Seed of the choice of views.
        context: Size of a crop relative to its box, from the region plan.
        codec: How the embeddings are stored.
    """

    model: str
    weights: str
    views: int = BuildConfig.views
    seed: int = BuildConfig.seed
    context: float = 1.0
    codec: Rows = field(default_factory=Rows)

    @property
    def name(self) -> str:
        """The column's name."""
        return f"{KINDS['crops'].prefix}{self.model}"

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights."""
        return {
            **clip_spec(self.model, self.weights, "crop"),
            "producer": "crops/1",
            "target": {
                "name": "crops",
                "views": self.views,
                "seed": self.seed,
                "crop": crop_spec(self.model, self.context),
            },
            "codec": self.codec.spec,
        }

    def info(self) -> ColumnInfo:
        """See `TeacherConfig.info`."""
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`. A live teacher sees the crops of one view at each visit."""
        embed = image_forward(self.model)
        views = self.stored_views(photo)
        cells = np.diff(photo.regions.offsets)
        stored = {**self.codec.blank((int(cells[views].sum()), embed.shape[0])), "views": views}
        return Cost(stored=stored, once=embed.flops * cells[views].sum(), visit=embed.flops * cells.mean())

    def stored_views(self, photo: Photo) -> np.ndarray:
        """Returns the views whose boxes are cropped, (K,) int32."""
        return stored_views(photo.key, photo.regions.n_views, self.views, self.seed)

    def load(self, device: str) -> CropsTeacher:
        """See `TeacherConfig.load`."""
        return CropsTeacher(self, device)


def crop_spec(model: str, context: float = 1.0) -> CropSpec:
    """How a CLIP sees crops; see `CropsConfig.context`."""
    return {
        "side": resolve(model).native_side,
        "context": context,
        "fit": "longest side, centred on black",
        "resample": RESAMPLE.name.lower(),
    }


class CropEmbedder:
    """A CLIP on its device, which embeds crops of its native side."""

    def __init__(self, name: str, model: str, weights: str, device: str) -> None:
        self.name = name
        self.device = torch.device(device)
        self.model, _ = load_model(model, weights, device)
        self.side = self.model.arch.native_side

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the embeddings (B, C), unit norm, of crops (B, 3, side, side)."""
        return F.normalize(self.model.encode_image(self.model.normalize(inputs)).float(), dim=1)


class CropsTeacher(CropEmbedder):
    """Embeds the crops of the boxes of some views."""

    def __init__(self, config: CropsConfig, device: str) -> None:
        super().__init__(config.name, config.model, config.weights, device)
        self.config = config

    def inputs(self, photo: Photo) -> np.ndarray:
        """Returns the crops of the boxes of the stored views, view by view, (M, side, side, 3) uint8."""
        regions, views = photo.regions, self.config.stored_views(photo)
        side, context = self.side, self.config.context

        def crops() -> np.ndarray:
            cells = [cell for view in views for cell in regions.view(view)]
            crops = np.empty((len(cells), side, side, 3), np.uint8)
            for crop, cell in zip(crops, cells, strict=True):
                crop[:] = photo.canvas.crop(photo.image, regions.boxes[cell], side, context)
            return crops

        return photo.once(("crops", side, context, *views.tolist()), crops)

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns for each photo the embeddings (M, C) float32, unit rows, in the order of `inputs`."""
        return [rows if len(rows) else rows.new_zeros(0, self.model.embed_dim) for rows in outputs]

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """Returns the codec's arrays of (M, C) rows, and `views` (K,) int32, the views they belong to."""
        arrays, error = self.config.codec.encode(target)
        return {**arrays, "views": self.config.stored_views(photo)}, error


def _configure(model: str, settings: BuildConfig) -> CropsConfig:
    return CropsConfig(
        model=model,
        weights=weights_for(model, settings),
        views=settings.views,
        seed=settings.seed,
        context=region_plan(settings.regions).context,
        codec=Rows(dtype=settings.codec),
    )


TEACHERS.add(
    "crops",
    TeacherFamily(kind="crops", models=clip_names, has_model=is_clip, configure=_configure),
    help="A CLIP's image embedding of the crop of each box (CLIPSelf).",
    needs="weights of a CLIP",
)
