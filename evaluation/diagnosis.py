"""Diagnosis: what a model does with a few photos, in figures and pictures, with or without annotations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from densecli.core.device import pick_device
from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.evaluation.classify import classify
from densecli.evaluation.config import ClassifyConfig
from densecli.evaluation.coupling import mean_and_median, ratios_of_photos
from densecli.evaluation.diagnosis_config import DiagnosisConfig
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.panoptic import PanopticDataset, absent_text
from densecli.evaluation.photo_files import PhotoFiles, Photos
from densecli.evaluation.photo_pictures import PhotoPictures, PictureRequest, draw_photo
from densecli.evaluation.region_counts import Classification
from densecli.models.categories import Categories
from densecli.models.checkpoints import WeightsInfo
from densecli.models.dense import DenseCLIP
from densecli.models.student import Student, has_layers
from densecli.models.text import category_embeddings
from densecli.shards.geometry import Canvas

LAYERS = 4
"""So many layers are drawn where none are named."""


@dataclass(frozen=True, kw_only=True)
class ModelDiagnosis:
    """The figures of one model.

    Attributes:
        weights: Where its weights are from.
        random_weights: Whether they are random, or began so.
        coupling_ratio_mean: The mean over tokens of R-SC's coupling ratio (eq. 15); None for a single photo.
        coupling_ratio_median: Their median.
        proxy_scores: The mean over the drawn photos of each layer's `proxy_score`; empty without layers.
        regions: Region classification; None without annotations.
    """

    weights: str
    random_weights: bool
    coupling_ratio_mean: float | None
    coupling_ratio_median: float | None
    proxy_scores: tuple[float, ...]
    regions: Classification | None

    @property
    def proxy_score(self) -> float | None:
        """The mean over the later half of the layers, where DeCLIP finds proxies; None without layers."""
        later = self.proxy_scores[len(self.proxy_scores) // 2 :]
        return float(np.mean(later)) if later else None

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        regions = self.regions and self.regions.to_dict()
        return {**vars(self), "proxy_score": self.proxy_score, "regions": regions}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What `diagnose` finds.

    Attributes:
        models: The figures by the title of each model.
        photos: The pictures of each photo.
        measured_photos: Number of photos that the figures are of.
        notes: What is left out, and why.
    """

    models: Mapping[str, ModelDiagnosis]
    photos: Sequence[PhotoPictures]
    measured_photos: int
    notes: Sequence[str]


def diagnose(
    models_under_test: Mapping[str, ModelUnderTest],
    photos: Photos,
    categories: Categories,
    config: DiagnosisConfig,
) -> Diagnosis:
    """Draws and measures one model, or one before and after training.

    Args:
        models_under_test: The models by title, of one architecture.
        photos: The photos; the first `config.limit` of them are drawn.
        categories: The categories of segmentations, heat maps and regions.
        config: What to draw, and how models are read out.

    Raises:
        DenseCLIError: The model has no such layer, or photos or weights cannot be read.
    """
    device = pick_device(config.device)
    loaded = {title: under_test.load_student(device) for title, under_test in models_under_test.items()}
    models = {title: model for title, (model, _) in loaded.items()}
    texts = {
        title: category_embeddings(model, categories.names, file=config.text_embeddings)
        for title, model in models.items()
        if isinstance(model, DenseCLIP)
    }
    request = PictureRequest(
        models=models,
        texts=texts,
        names=categories.names,
        canvas=Canvas(config.canvas),
        mode=config.mode,
        layers=_layers(next(iter(models.values())), config.layers),
        heat_maps=config.heat_maps,
        point=config.point,
    )
    drawn = [draw_photo(photos[i], request) for i in range(min(config.limit, len(photos)))]
    measured = {}
    for title, (model, info) in loaded.items():
        mean, median = _coupling_ratio(model, photos, config)
        measured[title] = ModelDiagnosis(
            weights=info.source,
            random_weights=info.random,
            coupling_ratio_mean=mean,
            coupling_ratio_median=median,
            proxy_scores=_mean_scores([each.readings[title].proxy_scores for each in drawn])
            if request.layers
            else (),
            regions=_regions(model, info, photos, texts.get(title), config),
        )
    return Diagnosis(
        models=measured, photos=drawn, measured_photos=len(photos), notes=_notes(request, photos)
    )


def _layers(model: Student, asked: Sequence[int]) -> tuple[int, ...]:
    """Numbers of the layers to draw; none of a network without layers."""
    if not has_layers(model):
        if asked:
            raise DenseCLIError(
                f"{model.arch.name} has no layers that can be drawn.", hint="Leave --layers out."
            )
        return ()
    depth = len(model.blocks())
    if asked and max(asked) > depth:
        raise DenseCLIError(
            f"{model.arch.name} has {depth} layers, not {max(asked)}.", hint=f"Give --layers 1 to {depth}."
        )
    return tuple(sorted(set(asked or (-(-depth * i // LAYERS) for i in range(1, LAYERS + 1)))))


def _mean_scores(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(float(mean) for mean in np.mean(scores, axis=0))


def _coupling_ratio(
    model: Student, photos: Photos, config: DiagnosisConfig
) -> tuple[float, float] | tuple[None, None]:
    """Mean and median, None for a single photo."""
    if len(photos) < 2:
        return None, None
    dense = partial(model.dense, mode=config.mode)
    return mean_and_median(ratios_of_photos(model, dense, photos, config.canvas))


def _regions(
    model: Student, info: WeightsInfo, photos: Photos, text: Any, config: DiagnosisConfig
) -> Classification | None:
    if not isinstance(photos, PanopticDataset) or not isinstance(model, DenseCLIP):
        return None
    how = ClassifyConfig(canvas=config.canvas, mode=config.mode)
    processes = Distributed(device=model.device)
    return classify(model, photos, text, info.source, how, processes, random_weights=info.random)


def _notes(request: PictureRequest, photos: Photos) -> list[str]:
    """What is left out, each in a sentence."""
    name = next(iter(request.models.values())).arch.name
    notes = []
    if not request.texts:
        notes.append(f"{name} has no text tower, so nothing is compared with categories.")
    if not request.layers:
        notes.append(f"{name} is no plain ViT, so only its dense map is drawn, not its layers.")
    if len(photos) < 2:
        notes.append("The coupling ratio compares pairs of photos, and there is only one.")
    if isinstance(photos, PhotoFiles) and photos.unreadable:
        notes.append(photos.left_out)
    if isinstance(photos, PanopticDataset) and photos.absent:
        notes.append(absent_text(photos.absent))
    return notes
