"""The P-VLM's dense map itself: labels of any categories, prompts and boxes follow from it (`relabel`)."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from densecli.models.checkpoints import load_model
from densecli.models.flops import dense_forward
from densecli.pipeline.teachers.base import Cost, Photo, weights_info
from densecli.pipeline.teachers.gram import TokenTeacher, map_cost
from densecli.pipeline.teachers.labels import map_spec, retrieval_map
from densecli.shards.codecs import Features

PREFIX = "features-"


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """A P-VLM whose map is kept, not loaded yet.

    model: a model's name or alias. weights: a path or random:SEED. resample: see `LabelsConfig`. codec: how
    the map is stored.
    """

    model: str
    weights: str
    resample: bool = True
    codec: Features = field(default_factory=Features)

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.model}"

    @property
    def of_regions(self) -> bool:
        return False

    def spec(self) -> dict[str, Any]:
        """Digests the weights; raises DenseCLIError where they are missing."""
        return {
            **map_spec(self.model, self.weights, self.resample),
            "producer": "features/2",
            "target": {"name": "features"},
            "codec": self.codec.spec,
        }

    def info(self) -> dict[str, Any]:
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        return map_cost(dense_forward(self.model, photo.canvas.size), self.codec)

    def load(self, device: str) -> TokenTeacher:
        model, _ = load_model(self.model, self.weights, device)
        look = partial(retrieval_map, model, resample=self.resample)
        return TokenTeacher(name=self.name, device=device, codec=self.codec, look=look)
