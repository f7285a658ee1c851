"""The teacher of `aggregated`: a CLIP's own tokens, averaged over contexts (R-SC, eq. 7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from PIL import Image
from torch import Tensor

from densecli.models.checkpoints import load_model
from densecli.models.flops import dense_forward
from densecli.models.registry import is_clip
from densecli.pipeline.config import SELF_RANK, BuildConfig
from densecli.pipeline.teachers.base import (
    Cost,
    Photo,
    clip_names,
    clip_spec,
    weights_for,
    weights_info,
)
from densecli.pipeline.teachers.families import TEACHERS, TeacherFamily
from densecli.pipeline.teachers.gram import TokenTeacher, factor_codec, map_cost
from densecli.shards.codecs import LowRank
from densecli.shards.geometry import RESAMPLE
from densecli.shards.kinds import KINDS
from densecli.shards.specs import ColumnInfo, TeacherSpec

MODE = "value"


@dataclass(frozen=True, kw_only=True)
class AggregatedConfig:
    """A CLIP that sees each photo within many others, before it is loaded.

    Attributes:
        model: A model's name or alias.
        weights: A path or random:SEED.
        contexts: N, the number of other photos.
        seed: Seed of the choice of other photos and of places in them.
        codec: How the factors are stored.
    """

    model: str
    weights: str
    contexts: int = BuildConfig.contexts
    seed: int = BuildConfig.seed
    codec: LowRank = field(default_factory=LowRank)

    @property
    def name(self) -> str:
        """The column's name."""
        return f"{KINDS['aggregated'].prefix}{self.model}"

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights."""
        return {
            **clip_spec(self.model, self.weights, "half of the side, in other photos of the shard"),
            "producer": "aggregated/1",
            "target": {"name": "aggregated", "mode": MODE, "contexts": self.contexts, "seed": self.seed},
            "codec": self.codec.spec,
        }

    def info(self) -> ColumnInfo:
        """See `TeacherConfig.info`."""
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        whole = dense_forward(self.model, photo.canvas.size, MODE)
        channels, tokens, _ = whole.shape
        inner = inner_tokens(tokens)
        stored = map_cost(whole._replace(shape=(channels, inner, inner)), self.codec).stored
        flops = self.contexts * whole.flops
        return Cost(stored=stored, once=flops, visit=flops)

    def load(self, device: str) -> AggregatedTeacher:
        """See `TeacherConfig.load`."""
        return AggregatedTeacher(self, device)


class AggregatedTeacher(TokenTeacher):
    """Eq. 7 of R-SC: the photo stands in N other photos, and the submaps of it are averaged.

    The paper says neither how large the photo is there nor what is averaged. Here it has half of the side, at
    places that fit the token grid, and unit tokens are averaged. The others are photos of its shard, so that
    a target depends on nothing else.
    """

    def __init__(self, config: AggregatedConfig, device: str) -> None:
        """Loads the CLIP."""
        self.config = config
        self.model, _ = load_model(config.model, config.weights, device)
        super().__init__(name=config.name, device=device, codec=config.codec, forward=self._dense)

    def _dense(self, inputs: Tensor) -> Tensor:
        return F.normalize(self.model.dense(self.model.normalize(inputs), mode=MODE).float(), dim=1)

    def inputs(self, photo: Photo) -> np.ndarray:
        """Returns the other photos with this one in them, (N, side, side, 3) uint8."""
        side = self.model.input_side(photo.canvas.size)
        patch, inner = self.model.patch_size, inner_tokens(side // self.model.patch_size)
        small = _resized(photo.padded(), inner * patch)
        composed = np.empty((self.config.contexts, side, side, 3), np.uint8)
        for canvas, (other, y, x) in zip(composed, self._places(photo), strict=True):
            image = photo.image if other is None else photo.shard[other].image()
            canvas[:] = _resized(photo.canvas.pad(image), side)
            canvas[y * patch : y * patch + len(small), x * patch : x * patch + len(small)] = small
        return composed

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns for each photo the unit tokens, (h, w, C) float32."""
        found = []
        for photo, maps in zip(photos, outputs, strict=True):
            inner = inner_tokens(maps.shape[-1])
            parts = [
                of_context[:, y : y + inner, x : x + inner]
                for of_context, (_, y, x) in zip(maps, self._places(photo), strict=True)
            ]
            found.append(F.normalize(torch.stack(parts).float().mean(dim=0), dim=0).permute(1, 2, 0))
        return found

    def _places(self, photo: Photo) -> Iterator[tuple[int | None, int, int]]:
        """The row in the shard of each other photo, and the photo's place in it in tokens from the top left.

        A function of key, seed and shard. A photo that is alone in its shard stands in itself: row None.
        """
        digest = xxhash.xxh3_128_intdigest(f"aggregated/{self.config.seed}/{photo.key}".encode())
        # Raw numbers are the same in every release of numpy.
        random = np.random.Philox(key=digest)
        others = [row for row, record in enumerate(photo.shard) if record.key != photo.key]
        tokens = self.model.input_side(photo.canvas.size) // self.model.patch_size
        free = tokens - inner_tokens(tokens) + 1
        order: list[int] = []
        for _ in range(self.config.contexts):
            # Each photo once, as long as there are enough.
            order = order or np.argsort(random.random_raw(len(others)), kind="stable").tolist()
            y, x = (int(number) % free for number in random.random_raw(2))
            yield (others[order.pop()] if others else None), y, x


def inner_tokens(tokens: int) -> int:
    """Side in tokens of a photo within another one whose side has `tokens`."""
    return max(1, tokens // 2)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """(S, S, 3) uint8 -> (side, side, 3)."""
    return image if len(image) == side else np.asarray(Image.fromarray(image).resize((side, side), RESAMPLE))


def _configure(model: str, settings: BuildConfig) -> AggregatedConfig:
    return AggregatedConfig(
        model=model,
        weights=weights_for(model, settings),
        contexts=settings.contexts,
        seed=settings.seed,
        codec=factor_codec(LowRank, settings, default_rank=SELF_RANK),
    )


TEACHERS.add(
    "aggregated",
    TeacherFamily(kind="aggregated", models=clip_names, has_model=is_clip, configure=_configure),
    help="A CLIP's own tokens, averaged over many other photos around the photo (R-SC, eq. 7).",
    needs="weights of a CLIP",
)
