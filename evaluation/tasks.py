"""What `evaluate` measures besides regions: segmentation, image-level zero-shot, patches by neighbours.

Each task makes tables to read and values to keep, of one model or of a run's student at several alphas.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.page import RANDOM_WEIGHTS, Table
from densecli.evaluation.config import KNNConfig, MeasureSettings, SegmentationConfig, ZeroShotConfig
from densecli.evaluation.knn import classify_patches
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.segmentation import Segmentation, segment
from densecli.evaluation.semantic import Labelled, open_labelled
from densecli.evaluation.weight_interpolation import Candidate, candidates
from densecli.evaluation.zeroshot import DominantThings, FolderImages, Images, ZeroShot, zero_shot
from densecli.models.categories import load_categories
from densecli.models.dense import DenseCLIP
from densecli.models.text import category_embeddings

Result = TypeVar("Result", Segmentation, ZeroShot)
Config = TypeVar("Config", KNNConfig, SegmentationConfig)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(MeasureSettings):
    """What is measured, of which model and on what.

    Attributes:
        subject: The model.
        before: For `alphas`, the model that a run's student was before it was trained.
        settings: Those settings of the task's configuration that were given.
    """

    subject: ModelUnderTest
    before: ModelUnderTest | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def labelled(self, split: str, limit: int | None) -> Labelled:
        return open_labelled(self.dataset, self.data, split, categories=self.categories, limit=limit)


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """Tables to print, and the figures that they are made of by the title of each model."""

    tables: Sequence[Table]
    values: Mapping[str, Mapping[str, Any]]

    @property
    def warning(self) -> str:
        """What a reader must know before any number, or nothing."""
        return RANDOM_WEIGHTS if any(found["random_weights"] for found in self.values.values()) else ""


def segmentation(question: EvaluationRequest, ranks: Distributed) -> EvaluationResult:
    """See `evaluation.segmentation`."""
    dataset = question.labelled(question.split, question.limit)
    config = settings_for(question, SegmentationConfig(), "side", "window", "stride")
    prompts = [prompt for names in dataset.classes.prompts for prompt in names]

    def measure(candidate: Candidate) -> Segmentation:
        clip, text = _with_text(candidate, prompts, question)
        return segment(clip, dataset, text, config, ranks)

    windows = f"windows of {config.window} px every {config.stride} px, short side {config.side} px"
    return _segmented(question, f"Segmentation, {question.dataset}", windows, _each(question, ranks, measure))


def knn(question: EvaluationRequest, ranks: Distributed) -> EvaluationResult:
    """See `evaluation.knn`. Raises DenseCLIError where the neighbours would be the photos themselves."""
    if question.train_split == question.split:
        raise DenseCLIError(
            f"The patches of {question.split} would be their own neighbours.",
            hint="Give another --train-split.",
        )
    bank = question.labelled(question.train_split, question.train_photos)
    queries = question.labelled(question.split, question.limit)
    config = settings_for(question, KNNConfig(), "canvas")

    def measure(candidate: Candidate) -> Segmentation:
        return classify_patches(candidate.model, bank, queries, config, ranks)

    how = f"patches of a canvas of {config.canvas} px by their {config.k} nearest in {len(bank)} other photos"
    return _segmented(question, f"Patch kNN, {question.dataset}", how, _each(question, ranks, measure))


def zeroshot(question: EvaluationRequest, ranks: Distributed) -> EvaluationResult:
    """See `evaluation.zeroshot`."""
    images = _images(question)
    batch = {name: value for name, value in question.settings.items() if name == "batch_size"}
    config = ZeroShotConfig(**batch)

    def measure(candidate: Candidate) -> ZeroShot:
        clip, text = _with_text(candidate, images.names, question)
        return zero_shot(clip, images, text, batch_size=config.batch_size, ranks=ranks)

    results = _each(question, ranks, measure)
    photos, classes = results[0][1].photos, results[0][1].classes
    label = "folder" if question.dataset == "folder" else "largest thing"
    table = Table(
        title=f"Image-level zero-shot, {question.dataset}",
        columns=["model", "top-1", "top-5"],
        rows=[[who.heading, _percent(found.top1), _percent(found.top5)] for who, found in results],
        note=f"Percent of {photos} photos; the class of each is its {label}, one of {classes}.",
    )
    return EvaluationResult(tables=[table], values=_values(results))


TASKS: dict[str, Callable[[EvaluationRequest, Distributed], EvaluationResult]] = {
    "segmentation": segmentation,
    "zeroshot": zeroshot,
    "knn": knn,
}


def settings_for(question: EvaluationRequest, default: Config, *sides: str) -> Config:
    """The default with what was given. `sides`, in pixels, stay within the canvas: the one given, else that
    of a run's student, which is also read out in the mode it was trained in. A given canvas is one itself."""
    of_run, given = question.subject.settings or {}, dict(question.settings)
    canvas = given.get("canvas", of_run.get("canvas"))
    if "canvas" not in sides:
        given.pop("canvas", None)
    within = {side: min(getattr(default, side), canvas) for side in sides} if canvas else {}
    return replace(default, **{"mode": of_run.get("mode", default.mode), **within, **given})


def _images(question: EvaluationRequest) -> Images:
    if question.dataset == "folder":
        return FolderImages(question.data, question.split, question.limit)
    if question.dataset != "panoptic":
        raise DenseCLIError(
            f"Photos of {question.dataset} have no class of their own.",
            hint="Give --dataset folder, or panoptic.",
        )
    known = load_categories(question.categories)
    return DominantThings(PanopticDataset(question.data, question.split, known, question.limit))


def _with_text(
    candidate: Candidate, prompts: Sequence[str], question: EvaluationRequest
) -> tuple[DenseCLIP, Tensor]:
    """The candidate's CLIP and what its text tower, or a file, says of the prompts."""
    if not isinstance(candidate.model, DenseCLIP):
        raise DenseCLIError(
            f"{candidate.title} has no texts to compare its features with.",
            hint="Measure it with --task knn.",
        )
    text = category_embeddings(candidate.model, prompts, file=question.text_embeddings)
    return candidate.model, text


def _each(
    question: EvaluationRequest, ranks: Distributed, measure: Callable[[Candidate], Result]
) -> list[tuple[Candidate, Result]]:
    found = candidates(question.subject, question.before, question.alphas, ranks.device)
    return [(candidate, measure(candidate)) for candidate in found]


def _segmented(
    question: EvaluationRequest, title: str, how: str, results: list[tuple[Candidate, Segmentation]]
) -> EvaluationResult:
    last = results[-1][1]
    tables = [
        Table(
            title=title,
            columns=["model", "mIoU", "pixel accuracy", "mean accuracy"],
            rows=[
                [who.heading, *map(_percent, (found.miou, found.pixel_accuracy, found.mean_accuracy))]
                for who, found in results
            ],
            note=f"Percent; {last.photos} photos, {len(last.classes)} classes in them or predicted; {how}.",
        )
    ]
    if question.classes:
        worst = sorted(last.classes, key=lambda row: (row.iou, row.name))
        rows = [[row.name, _percent(row.iou), f"{row.pixels:,}"] for row in worst]
        of = results[-1][0].heading
        tables.append(Table(title=f"{title}, {of}", columns=["class", "IoU", "size"], rows=rows))
    return EvaluationResult(tables=tables, values=_values(results))


def _values(results: list[tuple[Candidate, Result]]) -> dict[str, dict[str, Any]]:
    return {
        who.title: found.to_dict()
        | {"alpha": who.alpha, "weights": who.weights, "random_weights": who.random_weights}
        for who, found in results
    }


def _percent(value: float) -> str:
    return f"{value:.1f}"
