"""What `evaluate` is asked to measure, the result, and what the tasks of `evaluation.tasks` share.

A task measures one model, or the student of a run at several weight interpolations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.page import RANDOM_WEIGHTS, Section, Table
from densecli.evaluation.conditions import Conditions
from densecli.evaluation.config import KNNConfig, MeasureSettings, SegmentationConfig
from densecli.evaluation.detection import Detection
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.panoptic import absent_text
from densecli.evaluation.segmentation import Segmentation
from densecli.evaluation.semantic import Labelled, open_labelled
from densecli.evaluation.weight_interpolation import Candidate, candidates
from densecli.evaluation.zeroshot import Images, ZeroShot
from densecli.models.dense import DenseCLIP
from densecli.models.prompts import find_templates
from densecli.models.text import category_embeddings

Result = TypeVar("Result", Detection, Segmentation, ZeroShot)
Config = TypeVar("Config", KNNConfig, SegmentationConfig)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(MeasureSettings):
    """What `evaluate` is asked to measure.

    Attributes:
        under_test: The model.
        before: The student of a run before training; needed for `alphas`.
        settings: The settings of the task that the user gave.
    """

    under_test: ModelUnderTest
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
        sections: Sections of the page of --report, after the tables.
    """

    tables: Sequence[Table]
    values: Mapping[str, Mapping[str, Any]]
    measured: Sequence[Conditions] = ()
    sections: Sequence[Section] = ()

    @property
    def warning(self) -> str:
        """A warning to show above the numbers; empty if there is none."""
        return RANDOM_WEIGHTS if any(found["random_weights"] for found in self.values.values()) else ""


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
    note = f"{first.note} {absent_text(absent)}"
    values = {name: {**found, "absent_segments": absent} for name, found in result.values.items()}
    return replace(result, tables=[replace(first, note=note), *others], values=values)


def settings_for(request: EvaluationRequest, default: Config, *sides: str) -> Config:
    """Resolves the configuration of a task.

    Args:
        request: Its settings come first, then the mode and the canvas of its run.
        default: The configuration of all other settings.
        sides: Fields in pixels that are limited to the canvas, if a canvas is given or the run has one.
    """
    trained, given = request.under_test.settings or {}, dict(request.settings)
    canvas = given.get("canvas", trained.get("canvas"))
    if "canvas" not in sides:
        given.pop("canvas", None)
    within = {side: min(getattr(default, side), canvas) for side in sides} if canvas else {}
    return replace(default, **{"mode": trained.get("mode", default.mode), **within, **given})


def with_text(
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


def measure_each(
    request: EvaluationRequest, processes: Distributed, measure: Callable[[Candidate], Result]
) -> list[tuple[Candidate, Result]]:
    """Measures the model, or its student at every weight interpolation that was asked for."""
    found = candidates(request.under_test, request.before, request.alphas, processes.device)
    return [(candidate, measure(candidate)) for candidate in found]


def conditions_of(
    request: EvaluationRequest,
    seen: int | str,
    results: Sequence[tuple[Candidate, Detection | Segmentation | ZeroShot]],
    *,
    mode: str = "",
    prompts: bool = True,
    categories: str = "",
) -> list[Conditions]:
    """The conditions of each result.

    Args:
        request: What was asked for.
        seen: Side of the canvas in pixels, or what is seen of a photo in words.
        results: What was measured.
        mode: How the last block was read out.
        prompts: Whether the text tower was used.
        categories: The categories, by default the category set or the benchmark.
    """
    categories = categories or (request.categories if request.dataset == "panoptic" else request.dataset)
    found = []
    for who, result in results:
        templates = who.model.arch.templates if isinstance(who.model, DenseCLIP) else ""
        found.append(
            Conditions(
                data=f"{request.data}, {request.split}",
                photos=result.photos,
                categories=categories,
                prompts=(request.text_embeddings or request.templates or templates) if prompts else "",
                canvas=seen,
                mode=mode,
                weights=who.weights,
            )
        )
    return found


def values_of(
    results: list[tuple[Candidate, Result]], measured: Sequence[Conditions]
) -> dict[str, dict[str, Any]]:
    """The results as JSON values, with the conditions of each."""
    return {
        who.title: found.to_dict()
        | {"alpha": who.alpha, "weights": who.weights, "random_weights": who.random_weights}
        | {"measured": asdict(conditions)}
        for (who, found), conditions in zip(results, measured, strict=True)
    }
