"""A codec: one bit for each number of an embedding, and a teacher of crops that is stored by it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from densecli.models.registry import is_clip, resolve
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.teachers import TEACHERS, TeacherFamily
from densecli.pipeline.teachers.base import clip_names, weights_for
from densecli.pipeline.teachers.crops import CropsConfig
from densecli.shards.codecs import CODECS, Arrays, Errors
from densecli.shards.kinds import KINDS, TargetKind
from densecli.shards.quantise import ALL, Some


@CODECS.register("signs", help="Embeddings by the signs of their numbers: one bit each.")
@dataclass(frozen=True, kw_only=True)
class Signs:
    """Unit rows (N, C) as C bits each; they decode to +-1 / sqrt(C)."""

    width: int

    @property
    def spec(self) -> dict:
        return {"name": "signs", "width": self.width}

    def blank(self, shape: tuple[int, int]) -> Arrays:
        return {"bits": np.zeros((shape[0], -(-self.width // 8)), np.uint8)}

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        arrays = {"bits": np.packbits(x > 0, axis=1)}
        return arrays, self.error(arrays, x)

    def error(self, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> Errors:
        cosines = (self.decode(arrays) * x).sum(axis=1)
        return {"max_cosine": float((1 - cosines).max(initial=0)), "mean_cosine": float((1 - cosines).mean())}

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        bits = np.unpackbits(arrays["bits"][rows], axis=1, count=self.width)
        return (2 * bits.astype(np.float32) - 1) / np.float32(self.width**0.5)


KINDS.add(
    "signs",
    TargetKind(name="signs", prefix="signs-", layout="views", read_by=("region_cosine",), own_teacher=True),
    help="CLIPSelf's crop embeddings, one bit for each number.",
)


@dataclass(frozen=True, kw_only=True)
class SignsConfig(CropsConfig):
    """CLIPSelf's teacher with another codec."""

    codec: Signs = field(default_factory=lambda: Signs(width=0))

    @property
    def name(self) -> str:
        return f"signs-{self.model}"

    def spec(self) -> dict:
        spec = super().spec()
        return {**spec, "target": {**spec["target"], "name": "signs"}}


def configure(model: str, settings: BuildConfig) -> SignsConfig:
    width = resolve(model).clip_config()["embed_dim"]
    weights = weights_for(model, settings)
    return SignsConfig(model=model, weights=weights, views=settings.views, codec=Signs(width=width))


TEACHERS.add(
    "signs",
    TeacherFamily(kind="signs", models=clip_names, has_model=is_clip, configure=configure),
    help="CLIPSelf's crop embeddings, one bit for each number.",
    needs="weights of a CLIP",
)
