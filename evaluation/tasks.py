"""The tasks of `evaluate` other than regions: segmentation, image-level zero-shot, patches by neighbours.

Each task measures one model, or the student of a run at several weight interpolations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.page import RANDOM_WEIGHTS, Table
from densecli.evaluation.conditions import Conditions
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
from densecli.models.prompts import find_templates
from densecli.models.text import category_embeddings

Result = TypeVar("Result", Segmentation, ZeroShot)
Config = TypeVar("Config", KNNConfig, SegmentationConfig)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(MeasureSettings):
    """What `evaluate` is asked to measure.

    Attributes:
        subject: The model.
        before: The student of a run before training; needed for `alphas`.
        settings: The settings of the task that the user gave.
    """

    subject: ModelUnderTest
    before: ModelUnderTest | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def labelled(self, split: str, limit: int | None) -> Labelled:
        """Opens a split with a class for every pixel."""
        return open_labelled(self.dataset, self.data, split, categories=self.categories, limit=limit)


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The result of a task.

    Attributes:
        tables: Tables to print.
        values: The same figures as JSON values, by the title of each model.
        measured: The conditions of each model's figures.
    """

    tables: Sequence[Table]
    values: Mapping[str, Mapping[str, Any]]
    measured: Sequence[Conditions] = ()

    @property
    def warning(self) -> str:
        """A warning to show above the numbers; empty if there is none."""
        return RANDOM_WEIGHTS if any(found["random_weights"] for found in self.values.values()) else ""


def segmentation(request: EvaluationRequest, processes: Distributed) -> EvaluationResult:
    """Semantic segmentation; see `evaluation.segmentation`."""
    dataset = request.labelled(request.split, request.limit)
    config = settings_for(request, SegmentationConfig(), "side", "window", "stride")
    prompts = [prompt for names in dataset.classes.prompts for prompt in names]

    def measure(candidate: Candidate) -> Segmentation:
        clip, text = _with_text(candidate, prompts, request)
        return segment(clip, dataset, text, config, processes)

    windows = f"windows of {config.window} px every {config.stride} px, short side {config.side} px"
    results = _each(request, processes, measure)
    found = _segmented(request, f"Segmentation, {request.dataset}", windows, config.mode, results)
    return with_absent(found, processes, dataset)


def knn(request: EvaluationRequest, processes: Distributed) -> EvaluationResult:
    """Patch classification; see `evaluation.knn`.

    Raises:
        DenseCLIError: Patches and their neighbours would come from the same split.
    """
    if request.train_split == request.split:
        raise DenseCLIError(
            f"The patches of {request.split} would be their own neighbours.",
            hint="Give another --train-split.",
        )
    bank = request.labelled(request.train_split, request.train_photos)
    queries = request.labelled(request.split, request.limit)
    config = settings_for(request, KNNConfig(), "canvas")

    def measure(candidate: Candidate) -> Segmentation:
        return classify_patches(candidate.model, bank, queries, config, processes)

    how = f"patches of a canvas of {config.canvas} px by their {config.k} nearest in {len(bank)} other photos"
    results = _each(request, processes, measure)
    title = f"Patch kNN, {request.dataset}"
    found = _segmented(request, title, how, config.mode, results, prompts=False)
    return with_absent(found, processes, bank, queries)


def zeroshot(request: EvaluationRequest, processes: Distributed) -> EvaluationResult:
    """Image-level zero-shot classification; see `evaluation.zeroshot`."""
    images = _images(request)
    batch = {name: value for name, value in request.settings.items() if name == "batch_size"}
    config = ZeroShotConfig(**batch)

    def measure(candidate: Candidate) -> ZeroShot:
        clip, text = _with_text(candidate, images.names, request)
        return zero_shot(clip, images, text, batch_size=config.batch_size, processes=processes)

    results = _each(request, processes, measure)
    photos, classes = results[0][1].photos, results[0][1].classes
    label = "folder" if request.dataset == "folder" else "largest thing"
    table = Table(
        title=f"Image-level zero-shot, {request.dataset}",
        columns=["model", "top-1", "top-5"],
        rows=[[who.heading, _percent(found.top1), _percent(found.top5)] for who, found in results],
        note=f"Percent of {photos} photos; the class of each is its {label}, one of {classes}.",
    )
    measured = _conditions(request, "the model's own picture size", results)
    found = EvaluationResult(tables=[table], values=_values(results, measured), measured=measured)
    return with_absent(found, processes, images)


TASKS: dict[str, Callable[[EvaluationRequest, Distributed], EvaluationResult]] = {
    "segmentation": segmentation,
    "zeroshot": zeroshot,
    "knn": knn,
}


def with_absent(
    result: EvaluationResult, processes: Distributed, *datasets: Labelled | Images
) -> EvaluationResult:
    """Adds how many segments were left out because no pixel of their PNG has their id, if there are any.

    Args:
        result: What was measured.
        processes: The processes that share the photos.
        datasets: What was read for it.
    """
    own = torch.tensor([sum(dataset.absent for dataset in datasets)], device=processes.device)
    absent = int(processes.add(own).item())
    if not absent:
        return result
    first, *others = result.tables
    note = f"{first.note} {absent} segments are left out because their PNG has no pixel of theirs."
    values = {name: {**found, "absent_segments": absent} for name, found in result.values.items()}
    return replace(result, tables=[replace(first, note=note), *others], values=values)


def settings_for(request: EvaluationRequest, default: Config, *sides: str) -> Config:
    """Resolves the configuration of a task.

    Args:
        request: Its settings come first, then the mode and the canvas of its run.
        default: The configuration of all other settings.
        sides: Fields in pixels that are limited to the canvas, if a canvas is given or the run has one.
    """
    trained, given = request.subject.settings or {}, dict(request.settings)
    canvas = given.get("canvas", trained.get("canvas"))
    if "canvas" not in sides:
        given.pop("canvas", None)
    within = {side: min(getattr(default, side), canvas) for side in sides} if canvas else {}
    return replace(default, **{"mode": trained.get("mode", default.mode), **within, **given})


def _images(request: EvaluationRequest) -> Images:
    if request.dataset == "folder":
        return FolderImages(request.data, request.split, request.limit)
    if request.dataset != "panoptic":
        raise DenseCLIError(
            f"The photos of {request.dataset} have no class for the whole photo.",
            hint="Give --dataset folder or --dataset panoptic.",
        )
    known = load_categories(request.categories)
    return DominantThings(PanopticDataset(request.data, request.split, known, request.limit))


def _with_text(
    candidate: Candidate, prompts: Sequence[str], request: EvaluationRequest
) -> tuple[DenseCLIP, Tensor]:
    """The candidate's CLIP, and the prompts' embeddings from its text tower or a file."""
    if not isinstance(candidate.model, DenseCLIP):
        raise DenseCLIError(
            f"{candidate.title} has no text tower, which this task needs.",
            hint="Measure it with --task knn.",
        )
    templates = find_templates(request.templates) if request.templates else None
    text = category_embeddings(candidate.model, prompts, file=request.text_embeddings, templates=templates)
    return candidate.model, text


def _each(
    request: EvaluationRequest, processes: Distributed, measure: Callable[[Candidate], Result]
) -> list[tuple[Candidate, Result]]:
    found = candidates(request.subject, request.before, request.alphas, processes.device)
    return [(candidate, measure(candidate)) for candidate in found]


def _conditions(
    request: EvaluationRequest,
    seen: str,
    results: Sequence[tuple[Candidate, Segmentation | ZeroShot]],
    *,
    mode: str = "",
    prompts: bool = True,
) -> list[Conditions]:
    """The conditions of each result."""
    found = []
    for who, result in results:
        templates = who.model.arch.templates if isinstance(who.model, DenseCLIP) else ""
        found.append(
            Conditions(
                data=f"{request.data}, {request.split}",
                photos=result.photos,
                categories=request.categories if request.dataset == "panoptic" else request.dataset,
                prompts=(request.text_embeddings or request.templates or templates) if prompts else "",
                canvas=seen,
                mode=mode,
                weights=who.weights,
            )
        )
    return found


def _segmented(
    request: EvaluationRequest,
    title: str,
    how: str,
    mode: str,
    results: list[tuple[Candidate, Segmentation]],
    *,
    prompts: bool = True,
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
            note=f"Percent; {last.photos} photos, {len(last.classes)} classes annotated or predicted; {how}.",
        )
    ]
    if request.classes:
        worst = sorted(last.classes, key=lambda row: (row.iou, row.name))
        rows = [[row.name, _percent(row.iou), f"{row.pixels:,}"] for row in worst]
        of = results[-1][0].heading
        tables.append(Table(title=f"{title}, {of}", columns=["class", "IoU", "pixels"], rows=rows))
    measured = _conditions(request, how, results, mode=mode, prompts=prompts)
    return EvaluationResult(tables=tables, values=_values(results, measured), measured=measured)


def _values(
    results: list[tuple[Candidate, Result]], measured: Sequence[Conditions]
) -> dict[str, dict[str, Any]]:
    return {
        who.title: found.to_dict()
        | {"alpha": who.alpha, "weights": who.weights, "random_weights": who.random_weights}
        | {"measured": asdict(conditions)}
        for (who, found), conditions in zip(results, measured, strict=True)
    }


def _percent(value: float) -> str:
    return f"{value:.1f}"
