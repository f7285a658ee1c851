"""The teacher of `features`: a P-VLM's dense map, from which relabel makes labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from densecli.models.checkpoints import load_model
from densecli.models.flops import dense_forward
from densecli.models.registry import is_clip
from densecli.pipeline.teachers.base import (
    Cost,
    Photo,
    clip_names,
    weights_for,
    weights_info,
)
from densecli.pipeline.teachers.families import TEACHERS, TeacherFamily
from densecli.pipeline.teachers.gram import TokenTeacher, factor_codec, map_cost
from densecli.pipeline.teachers.labels import map_spec, retrieval_map
from densecli.shards.codecs import Features
from densecli.shards.datasets import defaults_for
from densecli.shards.kinds import KINDS
from densecli.shards.specs import ColumnInfo, TeacherSpec

if TYPE_CHECKING:
    from densecli.pipeline.config import BuildConfig


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """A P-VLM whose dense map is stored, before it is loaded.

    Attributes:
        model: A model's name or alias.
        weights: A path or random:SEED.
        resample: See `LabelsConfig`.
        codec: How the map is stored.
    """

    model: str
    weights: str
    resample: bool = True
    codec: Features = field(default_factory=Features)

    @property
    def name(self) -> str:
        """The column's name."""
        return f"{KINDS['features'].prefix}{self.model}"

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights."""
        return {
            **map_spec(self.model, self.weights, self.resample),
            "producer": "features/2",
            "target": {"name": "features"},
            "codec": self.codec.spec,
        }

    def info(self) -> ColumnInfo:
        """See `TeacherConfig.info`."""
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        return map_cost(dense_forward(self.model, photo.canvas.size), self.codec)

    def load(self, device: str) -> TokenTeacher:
        """See `TeacherConfig.load`."""
        model, _ = load_model(self.model, self.weights, device)
        forward = partial(retrieval_map, model, resample=self.resample)
        return TokenTeacher(name=self.name, device=device, codec=self.codec, forward=forward)


def _configure(model: str, settings: BuildConfig) -> FeaturesConfig:
    codec = factor_codec(Features, settings, default_rank=defaults_for(settings.dataset).features_rank)
    return FeaturesConfig(
        model=model, weights=weights_for(model, settings), resample=settings.resample, codec=codec
    )


TEACHERS.add(
    "features",
    TeacherFamily(kind="features", models=clip_names, has_model=is_clip, configure=_configure),
    help="A P-VLM's dense map, from which densecli relabel makes labels.",
    needs="weights of a CLIP",
)
