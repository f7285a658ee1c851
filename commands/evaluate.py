"""The command `evaluate`: measures a model or the student of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any, TypedDict

import click

from densecli.commands.command import command, only
from densecli.commands.options import Options
from densecli.commands.results import Regions, Result
from densecli.core.settings import setting, settings_of
from densecli.core.tables import printable
from densecli.evaluation.config import TASKS, ClassifyConfig, MeasureSettings, ReadoutConfig
from densecli.shards.config import DeviceSettings
from densecli.train.config import TrainConfig

COMMON = frozenset((*settings_of(ReadoutConfig), "canvas"))
"""Settings of one task's configuration that every task accepts."""
OTHERS: Mapping[str, tuple[str, ...]] = {
    "dataset": ("segmentation", "zeroshot", "knn"),
    "alphas": ("segmentation", "zeroshot", "knn", "detection"),
    "categories": ("regions", "segmentation", "zeroshot", "knn"),
    "train_split": ("knn",),
    "train_photos": ("knn",),
    "coupling": ("regions",),
    "refiner": ("regions",),
}
"""The tasks of those settings that are not in a task's own configuration."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(DeviceSettings):
    """The settings of evaluate, other than those of its tasks."""

    task: str = setting("regions", help="What to measure.", group="measure", choices=tuple(TASKS))
    run: str | None = setting(
        None,
        help="Run whose student to measure.",
        group="model",
        metavar="DIR",
        default_text="the newest in runs/",
        path=True,
        by_position=True,
    )
    student: str | None = setting(
        None, help="Model to measure.", group="model", metavar="NAME", default_text="the run's"
    )
    coupling: bool = setting(
        False,
        help="Measures R-SC's coupling ratio (eq. 15) and the similarity of tokens across segments instead.",
        group="regions",
    )
    refiner: str | None = setting(
        None,
        help="With --coupling: also measures the model's Refiner in this file.",
        group="regions",
        metavar="FILE",
        default_text="none",
        path=True,
    )
    report: str | None = setting(
        None,
        help="Writes a page to DIR/index.html; with --run it shows the student before and after.",
        group="output",
        metavar="DIR",
        default_text="none",
        path=True,
    )


WEIGHTS = only(TrainConfig, "weights", help="Weights of the model, as for train.")


class Coupling(TypedDict):
    """Token coupling; lower is better."""

    coupling_ratio_mean: Annotated[float | None, "Mean of R-SC's coupling ratio (eq. 15)."]
    coupling_ratio_median: Annotated[float | None, "Its median."]
    cross_segment_similarity: Annotated[float | None, "Cosine of tokens of different segments."]
    random_weights: Annotated[bool, "Whether weights began as random ones."]
    measured: Annotated[dict[str, Any], "Data, photos, categories, canvas and mode."]


class TaskFigures(TypedDict):
    """The figures of another task."""

    measured: Annotated[dict[str, Any], "Data, photos, categories, prompts, canvas and mode."]


@command(
    EvaluateSettings,
    MeasureSettings,
    WEIGHTS,
    *TASKS.values(),
    results=(
        Result(
            fields=Regions,
            when="--task regions",
            by='model: before, after; with --crops also each with ", crops"',
        ),
        Result(fields=Coupling, when="--coupling", by="network"),
        Result(fields=TaskFigures, when="another --task", by="model", more="The figures of the task."),
    ),
)
def evaluate(options: Options) -> None:
    """Measure a model, or the student of a run: region classification on a panoptic data set (boxes and
    masks of things, masks of stuff, stuff called a thing).

    Or, with --task, segmentation from features, image-level zero-shot classification, patches by nearest
    neighbours, or detection on given boxes: annotated or proposed boxes are classified and ranked, and
    pycocotools gives AP50 base and novel (COCO) or AP rare, common and frequent (LVIS). Nothing finds or
    moves a box or says whether it holds an object: that is no detector's AP.

    \b
    densecli evaluate runs/densevlm-eva02-b16-coco-512
    densecli evaluate --data data/coco --split val2017 --student eva02-b16
    densecli evaluate --task segmentation --dataset voc21 --data data/VOC2012 --split val --run RUN
    densecli evaluate --task zeroshot --dataset folder --data data/imagenet --split val --run RUN
    densecli evaluate --task knn --data data/coco --student dinov2-vits14
    densecli evaluate --task detection --data data/coco --split val2017 --run RUN
    """
    from densecli.commands.run_data import on_the_runs_data
    from densecli.evaluation.model_under_test import ModelUnderTest
    from densecli.models.weights import weights_given

    settings = options.make(EvaluateSettings)
    if settings.run and settings.student:
        raise click.UsageError("Give --run or --student.")
    check_task(options, settings.task)
    if options.get("pictures") and not settings.report:
        raise click.UsageError("--pictures needs --report DIR, whose page shows them.")
    if "nms" in options.given and not options.get("proposals"):
        raise click.UsageError("--nms needs --proposals: annotated boxes are all kept.")
    options = options.with_run("student")
    settings = options.make(EvaluateSettings)
    pairs = options.get("weights", ())
    if settings.run:
        model = ModelUnderTest.of_run(settings.run)
    else:
        name = str(settings.student)
        model = ModelUnderTest.named(name, weights_given(name, pairs))

    def before() -> Any:
        """The run's student before training."""
        return ModelUnderTest.before_run(str(settings.run), weights_given(model.model, pairs))

    about = options.make(MeasureSettings)
    training = about.train_photos if settings.task == "knn" else 0
    options = on_the_runs_data(
        options,
        settings.run,
        photos=about.limit,
        training=training,
        # Those of a detection are the annotation file's.
        with_categories=settings.task != "detection",
    )
    if settings.task == "regions":
        _regions(options, settings, model, before)
    else:
        _task(options, settings, model, before() if settings.run else None)


def check_task(options: Options, task: str) -> None:
    """Raises click.UsageError for an option that the task does not have."""
    tasks = {**OTHERS}
    for name, config in TASKS.items():
        for each in settings_of(config).keys() - COMMON:
            tasks[each] = (*tasks.get(each, ()), name)
    for name in options.given:
        if task not in tasks.get(name, (task,)):
            flag = name.replace("_", "-")
            raise click.UsageError(f"--{flag} is for --task {' or '.join(tasks[name])}.")


def given_of(options: Options, *names: str) -> dict[str, Any]:
    """The named values that were given."""
    return {name: options.given[name] for name in names if name in options.given}


def _regions(options: Options, settings: EvaluateSettings, model: Any, before: Any) -> None:
    """Measures region classification or, with --coupling, token coupling."""
    from densecli.core.distributed import joined_processes
    from densecli.evaluation.coupling import evaluate_coupling
    from densecli.evaluation.model_under_test import evaluate_regions
    from densecli.evaluation.region_page import write_region_page
    from densecli.evaluation.report import class_table, coupling_table, regions_table, size_table

    about = options.make(MeasureSettings)
    where: dict[str, Any] = {name: getattr(about, name) for name in ("data", "split", "limit", "categories")}
    crops = options.get("crops", False)
    given = given_of(options, *(settings_of(ClassifyConfig).keys() - {"crops"}))
    config = ClassifyConfig(**{**(model.settings or {}), **given})
    if settings.coupling:
        found = evaluate_coupling(model, settings.refiner, **where, device=settings.device, config=config)
        measured = next(iter(found.values())).measured
        text = f"{coupling_table(found).text()}\nMeasured on {measured.text()}."
        options.say(text, {title: asdict(each) for title, each in found.items()})
        return
    models = {model.title: model}
    if settings.run and settings.report:
        models = {"before": before(), "after": model}
    with joined_processes(settings.device) as processes:
        measure = partial(
            evaluate_regions,
            text_embeddings_file=about.text_embeddings,
            templates=about.templates,
            **where,
            processes=processes,
        )
        results = {name: measure(under_test=each, config=config) for name, each in models.items()}
        of_crops = {
            name: measure(under_test=each, config=replace(config, crops=True))
            for name, each in (models if crops else {}).items()
        }
        if not processes.first:
            return
    titled = {f"{name}, crops": result for name, result in of_crops.items()}
    options.write({name: result.to_dict() for name, result in {**results, **titled}.items()})

    def show(text: str) -> None:
        click.echo(printable(text), err=options.json == "-")

    show(regions_table({**results, **titled}).text())
    for name, result in results.items():
        if result.measured:
            show(f"{name}: measured on {result.measured.text()}.")
    rule = _as_pvlm(model.model, list(results.values())[-1], settings.run)
    if rule:
        show(rule)
    if about.classes:
        show(size_table(results).text())
        show(class_table(list(results.values())[-1], results.get("before")).text())
    if settings.report:
        page = write_region_page(
            settings.report,
            models,
            results,
            crops=of_crops,
            **where,
            config=config,
            device=settings.device,
        )
        show(f"Report: {page}")


def _as_pvlm(model: str, result: Any, run: str | None) -> str:
    """How to train by the labels of a model with this result; empty where it is no P-VLM, has learnt labels
    itself, or was measured on too few regions to say so."""
    from densecli.models.model_card import run_export
    from densecli.train.decoupling_advice import ENOUGH, advice, is_pvlm

    learnt = run_export(run)[1].get("columns", {}) if run else {}
    boxes, stuff = result.boxes_top1, result.masks_stuff_top1
    if "labels" in learnt or result.random_weights or min(result.things, result.stuffs) < ENOUGH:
        return ""
    return advice(boxes, stuff) if is_pvlm(model) else ""


def _task(options: Options, settings: EvaluateSettings, model: Any, before: Any) -> None:
    """Runs a task of `evaluation.tasks`, prints its tables, and writes JSON and report if asked for."""
    from densecli.core.distributed import joined_processes
    from densecli.core.page import Section, write_page
    from densecli.evaluation.evaluation_request import EvaluationRequest
    from densecli.evaluation.tasks import TASKS as MEASURES

    given = given_of(options, *settings_of(TASKS[settings.task]), *COMMON)
    request = options.make(EvaluationRequest, under_test=model, before=before, settings=given)
    with joined_processes(settings.device) as processes:
        found = MEASURES[settings.task](request, processes)
        if not processes.first:
            return
    notes = [
        f"{title}: measured on {measured.text()}."
        for title, measured in zip(found.values, found.measured, strict=True)
    ]
    tables = [f"{table.title}\n{table.text()}" for table in found.tables]
    text = "\n\n".join(["\n".join(notes), *tables])
    options.say(text, found.values)
    if settings.report:
        sections = [Section(title=settings.task.capitalize(), parts=found.tables), *found.sections]
        title = f"{model.title}: {settings.task}"
        page = write_page(f"{settings.report}/index.html", title, sections, warning=found.warning)
        click.echo(f"Report: {page}", err=options.json == "-")
