"""The tasks of `evaluate` other than regions.

They are segmentation, image-level zero-shot, patches by neighbours, and detection on given boxes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.page import Table
from densecli.evaluation.config import DetectionConfig, KNNConfig, SegmentationConfig, ZeroShotConfig
from densecli.evaluation.detection import Detection, measure_ranking, rank_boxes
from densecli.evaluation.detection_tables import ap_table, categories_text, category_table
from densecli.evaluation.evaluation_request import (
    EvaluationRequest,
    EvaluationResult,
    conditions_of,
    measure_each,
    settings_for,
    values_of,
    with_absent,
    with_text,
)
from densecli.evaluation.given_boxes import given_boxes
from densecli.evaluation.instances import read_instances
from densecli.evaluation.knn import classify_patches
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.segmentation import Segmentation, segment
from densecli.evaluation.segmentation_pictures import Pictures
from densecli.evaluation.weight_interpolation import Candidate
from densecli.evaluation.zeroshot import DominantThings, FolderImages, Images, ZeroShot, zero_shot
from densecli.models.categories import load_categories


def segmentation(request: EvaluationRequest, processes: Distributed) -> EvaluationResult:
    """Semantic segmentation; see `evaluation.segmentation`."""
    dataset = request.labelled(request.split, request.limit)
    config = settings_for(request, SegmentationConfig(), "side", "window", "stride")
    prompts = [prompt for names in dataset.classes.prompts for prompt in names]
    pictures = None
    if config.pictures and processes.first:
        pictures = Pictures(request.labelled(request.split, request.limit), config)

    def measure(candidate: Candidate) -> Segmentation:
        clip, text = with_text(candidate, prompts, request)
        found = segment(clip, dataset, text, config, processes)
        if pictures:
            pictures.predict(candidate.heading, clip, text)
        return found

    windows = f"windows of {config.window} px every {config.stride} px, short side {config.side} px"
    results = measure_each(request, processes, measure)
    found = _segmented(request, f"Segmentation, {request.dataset}", windows, config.mode, results)
    sections = pictures.sections() if pictures else []
    return replace(with_absent(found, processes, dataset), sections=sections)


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
    results = measure_each(request, processes, measure)
    title = f"Patch kNN, {request.dataset}"
    found = _segmented(request, title, how, config.mode, results, prompts=False)
    return with_absent(found, processes, bank, queries)


def zeroshot(request: EvaluationRequest, processes: Distributed) -> EvaluationResult:
    """Image-level zero-shot classification; see `evaluation.zeroshot`."""
    images = _images(request)
    batch = {name: value for name, value in request.settings.items() if name == "batch_size"}
    config = ZeroShotConfig(**batch)

    def measure(candidate: Candidate) -> ZeroShot:
        clip, text = with_text(candidate, images.names, request)
        return zero_shot(clip, images, text, batch_size=config.batch_size, processes=processes)

    results = measure_each(request, processes, measure)
    photos, classes = results[0][1].photos, results[0][1].classes
    label = "folder" if request.dataset == "folder" else "largest thing"
    table = Table(
        title=f"Image-level zero-shot, {request.dataset}",
        columns=["model", "top-1", "top-5"],
        rows=[[who.heading, _percent(found.top1), _percent(found.top5)] for who, found in results],
        note=f"Percent of {photos} photos; the class of each is its {label}, one of {classes}.",
    )
    measured = conditions_of(request, "the model's own picture size", results)
    found = EvaluationResult(tables=[table], values=values_of(results, measured), measured=measured)
    return with_absent(found, processes, images)


def detection(request: EvaluationRequest, processes: Distributed) -> EvaluationResult:
    """Ranking of given boxes; see `evaluation.detection`."""
    config = DetectionConfig(**{**(request.under_test.settings or {}), **request.settings})
    instances = read_instances(
        Path(request.data),
        request.split,
        file=Path(config.instances) if config.instances else None,
        novel=config.novel,
        limit=request.limit,
    )
    given = given_boxes(instances, config.proposals)

    def measure(candidate: Candidate) -> Detection:
        clip, text = with_text(candidate, instances.categories.names, request)
        ranked = rank_boxes(clip, instances, given, text, config, processes)
        return processes.on_rank_zero(lambda: measure_ranking(instances, given, ranked))

    results = measure_each(request, processes, measure)
    title = f"Given boxes ranked, {categories_text(instances)}"
    tables = [ap_table([(who.heading, found) for who, found in results], instances, given, title)]
    if request.classes:
        tables.append(category_table(results[-1][0].heading, results[-1][1], title))
    measured = conditions_of(
        request, config.canvas, results, mode=config.mode, categories=categories_text(instances)
    )
    return EvaluationResult(tables=tables, values=values_of(results, measured), measured=measured)


TASKS: dict[str, Callable[[EvaluationRequest, Distributed], EvaluationResult]] = {
    "segmentation": segmentation,
    "zeroshot": zeroshot,
    "knn": knn,
    "detection": detection,
}


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
    measured = conditions_of(request, how, results, mode=mode, prompts=prompts)
    return EvaluationResult(tables=tables, values=values_of(results, measured), measured=measured)


def _percent(value: float) -> str:
    return f"{value:.1f}"
