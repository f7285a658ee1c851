"""Teachers: frozen networks, each of which fills one column; and what a teacher's name means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import find_file, find_weights
from densecli.models.registry import resolve
from densecli.models.vfms import VFMS, is_vfm
from densecli.pipeline.teachers.base import Batcher, Cost, Photo, Teacher, TeacherConfig, live
from densecli.pipeline.teachers.crops import CropsConfig, CropsTeacher
from densecli.pipeline.teachers.features import FeaturesConfig
from densecli.pipeline.teachers.gram import GramConfig, SelfConfig, TokenTeacher
from densecli.pipeline.teachers.labels import LabelsConfig, LabelsTeacher
from densecli.pipeline.teachers.refiner import RefinedConfig, RefinedTeacher
from densecli.shards.codecs import Features, LowRank, Rows
from densecli.shards.datasets import defaults_for
from densecli.shards.regions import region_plan

if TYPE_CHECKING:
    from densecli.pipeline.config import BuildConfig

__all__ = [
    "Batcher",
    "Cost",
    "CropsConfig",
    "CropsTeacher",
    "FeaturesConfig",
    "GramConfig",
    "LabelsConfig",
    "LabelsTeacher",
    "Photo",
    "RefinedConfig",
    "RefinedTeacher",
    "SelfConfig",
    "Teacher",
    "TeacherConfig",
    "TokenTeacher",
    "default_categories",
    "kind_of",
    "live",
    "models_of",
    "teacher_config",
]

Factors = TypeVar("Factors", bound=LowRank)

# What comes before the model's name, and a dash, where it is not asked for labels.
PREFIXES = ("crops", "features", "self", "refiner")
# `spatial` sharpens the correlations that `context` compares as they are: with DINOv2-S's tokens of photos, a
# rank of 64 changes its loss by 1.2e-3 of it, a rank of 96 by less than 5e-4.
SELF_RANK = 96


def teacher_config(name: str, settings: BuildConfig) -> TeacherConfig:
    """The teacher of a name: MODEL gives labels, features-MODEL the map that they come from, crops-MODEL
    crops, self-MODEL its own tokens, a VFM gram, refiner-MODEL what the Refiner of the model says of each
    box.

    Raises DenseCLIError for an unknown name, with the known ones, and where there are no weights.
    """
    kind, model = _split(name)
    weights = settings.weights.get(model) or str(find_weights(model))
    weights = _absolute(weights)
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
            return SelfConfig(model=model, weights=weights, codec=_factors(LowRank, settings, SELF_RANK))
        case "features":
            rank = defaults_for(settings.dataset).features_rank
            return FeaturesConfig(model=model, weights=weights, codec=_factors(Features, settings, rank))
        case "refiner":
            return RefinedConfig(
                model=model,
                weights=weights,
                refiner=_absolute(settings.weights.get(name) or _find_refiner(model)),
                views=settings.views,
                seed=settings.seed,
                side=settings.side,
                codec=_factors(LowRank, settings, 64),
            )
        case "gram":
            return GramConfig(
                name=model,
                weights=weights,
                student_patch=settings.student_patch or defaults_for(settings.dataset).student_patch,
                codec=_factors(LowRank, settings, 64),
            )
    categories = settings.categories or default_categories(settings.dataset)
    return LabelsConfig(
        name=model,
        weights=weights,
        categories=fs.absolute(categories) if os.path.isfile(categories) else categories,
        text_embeddings=fs.absolute(settings.text_embeddings) if settings.text_embeddings else None,
        templates=settings.templates,
        tau=settings.tau,
    )


def default_categories(dataset: str) -> str:
    """The category set of labels where none is named."""
    return defaults_for(dataset).categories


def kind_of(name: str) -> str:
    """The kind of column that a teacher fills: labels, features, crops, self, refined or gram."""
    kind, _ = _split(name)
    return "refined" if kind == "refiner" else kind


def models_of(name: str) -> list[str]:
    """The names by which a teacher's weights go: its model's, and its own where it is a Refiner."""
    kind, model = _split(name)
    return [model, name] if kind == "refiner" else [model]


def _find_refiner(model: str) -> str:
    """The file of a model's Refiner where none is named."""
    try:
        return str(find_file(f"refiner-{model}", f"refiner-{resolve(model).name}"))
    except DenseCLIError as error:
        raise DenseCLIError(
            str(error),
            hint=f"Train it with densecli train-refiner --student {resolve(model).name}, then name it: "
            f"--weights refiner-{model}=RUN/export/refiner.safetensors.",
        ) from None


def _absolute(weights: str) -> str:
    """A path as any folder's process would write it; random:SEED as it is."""
    return weights if weights.startswith("random:") else fs.absolute(weights)


def _split(name: str) -> tuple[str, str]:
    """(kind of target, model) of a teacher's name."""
    if is_vfm(name):
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


def _factors(codec: type[Factors], settings: BuildConfig, default_rank: int) -> Factors:
    rank = None if settings.gram_rmse else settings.rank or default_rank
    return codec(rank=rank, rmse=settings.gram_rmse, dtype=settings.codec)
