"""Teachers: frozen networks, each of which fills one column; and what a teacher's name means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from models.checkpoints import find_file, find_weights
from models.registry import resolve
from models.vfm import VFMS
from pipeline.teachers.base import Asking, Photo, Teacher, TeacherConfig, live
from pipeline.teachers.crops import CropsConfig, CropsTeacher
from pipeline.teachers.gram import GramConfig, SelfConfig, TokenTeacher
from pipeline.teachers.labels import LabelsConfig, LabelsTeacher
from shards import fs
from shards.codecs import LowRank, Rows
from shards.errors import DenseCLIError
from shards.regions import region_plan

if TYPE_CHECKING:
    from pipeline.config import BuildConfig

__all__ = [
    "Asking",
    "CropsConfig",
    "CropsTeacher",
    "GramConfig",
    "LabelsConfig",
    "LabelsTeacher",
    "Photo",
    "SelfConfig",
    "Teacher",
    "TeacherConfig",
    "TokenTeacher",
    "live",
    "model_of",
    "teacher_config",
]

# What comes before the model's name, and a dash, where it is not asked for labels.
PREFIXES = ("crops", "self")
# `spatial` sharpens the correlations that `context` compares as they are: with DINOv2-S's tokens of photos, a
# rank of 64 changes its loss by 1.2e-3 of it, a rank of 96 by less than 5e-4.
SELF_RANK = 96


def teacher_config(name: str, settings: BuildConfig) -> TeacherConfig:
    """The teacher of a name: MODEL gives labels, crops-MODEL crops, self-MODEL its own tokens, a VFM gram.

    Raises DenseCLIError for an unknown name, with the known ones, and where there are no weights.
    """
    kind, model = _split(name)
    weights = settings.weights.get(model) or str(find_file(model) if kind == "gram" else find_weights(model))
    if not weights.startswith("random:"):
        weights = fs.absolute(weights)
    match kind:
        case "crops":
            return CropsConfig(
                model=model,
                weights=weights,
                views=settings.views,
                seed=settings.seed,
                context=region_plan(settings.regions).context,
                codec=Rows(dtype=settings.codec),
            )
        case "self":
            return SelfConfig(model=model, weights=weights, codec=_factors(settings, SELF_RANK))
        case "gram":
            return GramConfig(
                name=model,
                weights=weights,
                student_patch=settings.student_patch or (12 if settings.dataset == "scenes" else 16),
                codec=_factors(settings, LowRank.rank),
            )
    categories = settings.categories or ("scenes" if settings.dataset == "scenes" else "coco_stuff_ade_316")
    return LabelsConfig(
        name=model,
        weights=weights,
        categories=fs.absolute(categories) if os.path.isfile(categories) else categories,
        text_embeddings=fs.absolute(settings.text_embeddings) if settings.text_embeddings else None,
        templates=settings.templates,
        tau=settings.tau,
    )


def model_of(name: str) -> str:
    """The model that a teacher is, by whose name its weights go."""
    return _split(name)[1]


def _split(name: str) -> tuple[str, str]:
    """(kind of target, model) of a teacher's name."""
    if name in VFMS:
        return "gram", name
    prefix, _, model = name.partition("-")
    kind, model = (prefix, model) if prefix in PREFIXES else ("labels", name)
    try:
        resolve(model)
    except DenseCLIError as error:
        prefixed = " or ".join(f"{prefix}-MODEL" for prefix in PREFIXES)
        raise DenseCLIError(
            f"There is no teacher called {name!r}.",
            hint=f"{error.hint} A teacher is one of them, {prefixed}, or one of {', '.join(VFMS)}.",
        ) from None
    return kind, model


def _factors(settings: BuildConfig, rank: int | None) -> LowRank:
    """rank: where the settings say nothing."""
    rank = None if settings.gram_rmse else settings.rank or rank
    return LowRank(rank=rank, rmse=settings.gram_rmse, dtype=settings.codec)
