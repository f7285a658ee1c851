"""The teachers of `gram` and `self`: token maps of a VFM (DeCLIP) or of a CLIP itself (SC-CLIPSelf)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.models.checkpoints import load_model
from densecli.models.flops import Forward, dense_forward, vfm_forward
from densecli.models.registry import is_clip
from densecli.models.vfm_checkpoints import load_vfm
from densecli.models.vfms import VFMS, find_vfm, is_vfm
from densecli.pipeline.config import RANK, SELF_RANK, BuildConfig
from densecli.pipeline.teachers.base import (
    Cost,
    Photo,
    TeacherConfig,
    clip_names,
    clip_spec,
    weights_for,
    weights_id,
    weights_info,
)
from densecli.pipeline.teachers.factors import array_names, encode_maps, errors_of
from densecli.pipeline.teachers.families import TEACHERS, TeacherFamily
from densecli.shards.codecs import Arrays, Errors, LowRank
from densecli.shards.datasets import Dataset, defaults_for
from densecli.shards.kinds import KINDS
from densecli.shards.specs import CodecSpec, ColumnInfo, TeacherSpec

Factors = TypeVar("Factors", bound=LowRank)


@dataclass(frozen=True, kw_only=True)
class GramConfig:
    """A vision foundation model (VFM), before it is loaded.

    Attributes:
        name: Name of the VFM.
        weights: A path or random:SEED.
        student_patch: Patch size in pixels of the future students. The canvas is resized so that the VFM has
            the same token grid.
        codec: How the factors are stored.
    """

    name: str
    weights: str
    student_patch: int = Dataset.student_patch
    codec: LowRank = field(default_factory=LowRank)

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights."""
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

    def info(self) -> ColumnInfo:
        """See `TeacherConfig.info`."""
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        return map_cost(vfm_forward(self.name, photo.canvas.size, self.student_patch), self.codec)

    def load(self, device: str) -> TokenTeacher:
        """See `TeacherConfig.load`."""
        model = load_vfm(self.name, self.weights, device)
        return TokenTeacher(
            name=self.name,
            device=device,
            codec=self.codec,
            forward=lambda inputs: model(model.prepare(inputs, self.student_patch)),
        )


@dataclass(frozen=True, kw_only=True)
class SelfConfig:
    """A CLIP as its own student's teacher, before it is loaded: the spatial correlations of SC-CLIPSelf.

    Attributes:
        model: A model's name or alias.
        weights: A path or random:SEED.
        mode: How its last block is read out; see `DenseCLIP`.
        codec: How the factors are stored.
    """

    model: str
    weights: str
    mode: str = "value"
    codec: LowRank = field(default_factory=LowRank)

    @property
    def name(self) -> str:
        """The column's name."""
        return f"{KINDS['self'].prefix}{self.model}"

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights."""
        return {
            **clip_spec(self.model, self.weights, "nearest multiple of the patch"),
            "producer": "self/2",
            "target": {"name": "self", "mode": self.mode},
            "codec": self.codec.spec,
        }

    def info(self) -> ColumnInfo:
        """See `TeacherConfig.info`."""
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        return map_cost(dense_forward(self.model, photo.canvas.size, self.mode), self.codec)

    def load(self, device: str) -> TokenTeacher:
        """See `TeacherConfig.load`."""
        model, _ = load_model(self.model, self.weights, device)
        dense = partial(model.dense, mode=self.mode)
        return TokenTeacher(
            name=self.name,
            device=device,
            codec=self.codec,
            forward=lambda inputs: F.normalize(dense(model.prepare(inputs)).float(), dim=1),
        )


class TokenTeacher:
    """A network that makes a map of unit tokens from a canvas; a low-rank factor of the map is stored."""

    def __init__(
        self, *, name: str, device: str, codec: LowRank, forward: Callable[[Tensor], Tensor]
    ) -> None:
        """Takes a loaded network.

        Args:
            name: Name of the teacher.
            device: Device of the network.
            codec: How the factors are stored.
            forward: From canvases (B, 3, S, S) uint8 to maps (B, C, h, w), unit norm per token.
        """
        self.name = name
        self.device = torch.device(device)
        self.codec = codec
        self._forward = forward

    def inputs(self, photo: Photo) -> np.ndarray:
        """Returns the canvas, (1, S, S, 3) uint8."""
        return photo.padded()[None]

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns maps (B, C, h, w), unit norm per token, of canvases (B, 3, S, S)."""
        return self._forward(inputs)

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns for each photo the unit tokens, (h, w, C) float32."""
        return [of_photo[0].float().permute(1, 2, 0) for of_photo in outputs]

    def reduce(self, targets: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Returns the grid, the figures and the arrays of each map, see `encode_maps`.

        The maps themselves where the codec needs a full decomposition, which is for the CPU.
        """
        if self.codec.method == "eigh":
            return [(target,) for target in targets]
        maps = torch.stack(list(targets))
        grid = torch.tensor(maps.shape[1:3], dtype=torch.int32)
        return [(grid, *parts) for parts in encode_maps(self.codec, maps.flatten(1, 2))]

    def encode(self, photo: Photo, *parts: np.ndarray) -> tuple[Arrays, Errors]:
        """Makes the stored arrays of what `reduce` returned.

        Returns:
            The codec's arrays; `grid` (2,) int32, which is h and w; and `bound` (2,) float32, the `row_norm`
            and `max_abs` of this map's error, which bound its effect on a loss.
        """
        if len(parts) == 1:
            (target,) = parts
            grid = np.array(target.shape[:2], np.int32)
            arrays, error = self.codec.encode(target.reshape(grid.prod(), -1))
        else:
            grid, figures, *coded = parts
            arrays = dict(zip(array_names(self.codec), coded, strict=True))
            error = errors_of(self.codec, figures)
        bound = np.array([error["row_norm"], error["max_abs"]], np.float32)
        return {**arrays, "grid": grid, "bound": bound}, error


def map_cost(forward: Forward, codec: LowRank) -> Cost:
    """Returns the cost of a photo for a `TokenTeacher` with this forward pass and codec."""
    channels, height, width = forward.shape
    about = {"grid": np.zeros(2, np.int32), "bound": np.zeros(2, np.float32)}
    stored = {**codec.blank((height * width, channels)), **about}
    return Cost(stored=stored, once=forward.flops, visit=forward.flops)


def with_method_of(teacher: TeacherConfig, codec: CodecSpec) -> TeacherConfig:
    """Returns a teacher with the method of factorisation of a column; the same one if it has no factors.

    Args:
        teacher: Any teacher.
        codec: The column's `spec["codec"]`.
    """
    own = getattr(teacher, "codec", None)
    method, seed = codec.get("method", LowRank.method), codec.get("seed", LowRank.seed)
    if not isinstance(own, LowRank) or (own.method, own.seed) == (method, seed):
        return teacher
    changed: TeacherConfig = replace(cast(Any, teacher), codec=replace(own, method=method, seed=seed))
    return changed


def factor_codec(codec: type[Factors], settings: BuildConfig, *, default_rank: int) -> Factors:
    """Returns the codec of a token map for the settings of a build."""
    if settings.gram_rmse:
        # To find the rank takes the whole spectrum.
        return codec(rank=None, rmse=settings.gram_rmse, dtype=settings.codec)
    return codec(rank=settings.rank or default_rank, dtype=settings.codec, method="subspace")


def _configure_gram(model: str, settings: BuildConfig) -> GramConfig:
    return GramConfig(
        name=model,
        weights=weights_for(model, settings),
        student_patch=settings.student_patch or defaults_for(settings.dataset).student_patch,
        codec=factor_codec(LowRank, settings, default_rank=RANK),
    )


def _configure_self(model: str, settings: BuildConfig) -> SelfConfig:
    codec = factor_codec(LowRank, settings, default_rank=SELF_RANK)
    return SelfConfig(model=model, weights=weights_for(model, settings), codec=codec)


TEACHERS.add(
    "gram",
    TeacherFamily(
        kind="gram",
        models=lambda: VFMS,
        has_model=is_vfm,
        configure=_configure_gram,
        placeholder="VFM",
    ),
    help="A vision foundation model's tokens, for their correlations (DeCLIP).",
    needs="weights of a VFM",
)
TEACHERS.add(
    "self",
    TeacherFamily(kind="self", models=clip_names, has_model=is_clip, configure=_configure_self),
    help="A CLIP's own tokens, for their correlations (SC-CLIPSelf).",
    needs="weights of a CLIP",
)
