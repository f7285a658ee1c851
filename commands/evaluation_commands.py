"""The verbs that measure."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from densecli.commands.flags import flags, given, newest_store, say, write_json
from densecli.commands.task_flags import take_task_flags, task_flags

if TYPE_CHECKING:
    from densecli.ablation.runs import Runner


@click.command()
@task_flags
@click.option("--mode", metavar="NAME", help="How the last block is read out.")
@click.option("--classes", is_flag=True, help="Print rows per size and per class as well.")
@click.option("--crops", is_flag=True, help="Also of each segment's own crop, by [CLS]: an upper bound.")
@click.option("--report", metavar="DIR", help="Write DIR/index.html; with --run, before and after.")
@click.option("--coupling", is_flag=True, help="Only how alike the tokens of different segments are.")
@click.option("--refiner", metavar="FILE", help="With --coupling: also of the model's Refiner.")
@flags("data", "split", "limit", "run", "student", "weights", "categories", "text-embeddings", "canvas")
@flags("batch-size", "device", "json")
def evaluate(
    task: str,
    data: str | None,
    split: str | None,
    limit: int | None,
    run: str | None,
    student: str | None,
    weights: Sequence[tuple[str, str]],
    categories: str | None,
    text_embeddings: str | None,
    device: str,
    classes: bool,
    crops: bool,
    report: str | None,
    coupling: bool,
    refiner: str | None,
    json_file: str | None,
    **settings: Any,
) -> None:
    """Region classification on a panoptic dataset: Boxes, Masks-T, Masks-S, stuff called a thing.

    Or, by --task, segmentation from features, image-level zero-shot, or patches by nearest neighbours.

    \b
    densecli evaluate --data data/coco --split val2017 --run runs/densevlm-eva02-b16-coco-512
    densecli evaluate --task segmentation --dataset voc21 --data data/VOC2012 --split val --run RUN
    densecli evaluate --task zeroshot --dataset folder --data data/imagenet --split val --run RUN
    densecli evaluate --task knn --data data/coco --student dinov2-vits14
    """
    from densecli.core.distributed import joined_processes
    from densecli.evaluation.classify import ClassifyConfig
    from densecli.evaluation.coupling import evaluate_coupling
    from densecli.evaluation.model_under_test import ModelUnderTest, evaluate_regions
    from densecli.evaluation.region_page import write_region_page
    from densecli.evaluation.report import class_table, coupling_table, regions_table, size_table
    from densecli.evaluation.tasks import EvaluationRequest
    from densecli.models.checkpoints import weights_given

    own = take_task_flags(task, settings)
    path = weights_given(student, weights) if student else None
    subject = (
        ModelUnderTest.of_run(run) if run else ModelUnderTest(model=student or "eva02-b16", weights=path)
    )
    where: dict[str, Any] = {
        "data": data or "data/coco",
        "split": split or "val2017",
        "limit": limit,
        "categories": categories or "133",
    }
    if task != "regions":
        if crops or coupling or refiner:
            raise click.UsageError("--crops, --coupling and --refiner are for --task regions.")
        asked = {**where, **own, "text_embeddings": text_embeddings, "classes": classes}
        if run:
            asked["before"] = ModelUnderTest.before_run(run, weights_given(subject.model, weights))
        question = EvaluationRequest(subject=subject, settings=given(settings), **asked)
        _answer(task, question, device, report, json_file)
        return
    config = ClassifyConfig(**{**(subject.settings or {}), **given(settings)})
    if coupling:
        ratios = evaluate_coupling(subject, refiner, **where, device=device, config=config)
        say(coupling_table(ratios).text(), json_file, ratios)
        return
    subjects = {subject.title: subject}
    if run and report:
        earlier = ModelUnderTest.before_run(run, weights_given(subject.model, weights))
        subjects = {"before": earlier, "after": subject}
    with joined_processes(device) as ranks:
        measure = partial(evaluate_regions, text_embeddings_file=text_embeddings, **where, ranks=ranks)
        results = {name: measure(subject=each, config=config) for name, each in subjects.items()}
        asked = subjects if crops else {}
        of_crops = {
            name: measure(subject=each, config=replace(config, crops=True)) for name, each in asked.items()
        }
        if not ranks.first:
            return
    titled = {f"{name}, crops": result for name, result in of_crops.items()}
    write_json(json_file, {name: result.to_dict() for name, result in {**results, **titled}.items()})
    show = partial(click.echo, err=json_file == "-")
    show(regions_table({**results, **titled}).text())
    if classes:
        show(size_table(results).text())
        show(class_table(list(results.values())[-1], results.get("before")).text())
    if report:
        page = write_region_page(
            report, subjects, results, crops=of_crops, **where, config=config, device=device
        )
        show(f"Report: {page}")


def _answer(task: str, question: Any, device: str, report: str | None, json_file: str | None) -> None:
    """Measures a task of `evaluation.tasks`; prints its tables, and writes what was asked for."""
    from densecli.core.distributed import joined_processes
    from densecli.core.page import Section, write_page
    from densecli.evaluation.tasks import TASKS

    with joined_processes(device) as ranks:
        found = TASKS[task](question, ranks)
        if not ranks.first:
            return
    text = "\n\n".join(f"{table.title}\n{table.text()}" for table in found.tables)
    say(text, json_file, found.values)
    if report:
        title = f"{question.subject.title}: {task}"
        section = Section(title=task.capitalize(), parts=found.tables)
        page = write_page(f"{report}/index.html", title, [section], warning=found.warning)
        click.echo(f"Report: {page}", err=json_file == "-")


@click.command()
@click.argument("spec", required=False)
@click.option("--list", "listed", is_flag=True, help="Name the specs that come with densecli.")
@click.option("--dry-run", is_flag=True, help="Check it and say what would be run.")
@click.option(
    "--resume",
    type=click.Choice(["interrupted", "never", "overwrite"]),
    default="interrupted",
    show_default=True,
    help="What to do with runs that are there.",
)
@flags("store", "run", "json")
@click.pass_context
def ablate(
    ctx: click.Context,
    spec: str | None,
    listed: bool,
    dry_run: bool,
    resume: Any,
    store: str | None,
    run: str | None,
    json_file: str | None,
) -> None:
    """Train and measure a grid of settings on one store: a table over seeds, and what the teachers cost.

    SPEC is a TOML file or the name of a shipped one. What is finished is not run again. Exits with 1 where a
    run failed; the others are run all the same.

    \b
    densecli ablate --list
    densecli ablate decoupling --store stores/coco-512
    """
    from densecli.ablation.report import summary, write_report
    from densecli.ablation.runs import check, photos_seen, run_all
    from densecli.ablation.spec import arguments, cells, find_spec, load_spec, measured_on, parsed, shipped
    from densecli.ablation.teacher_cost import teacher_costs
    from densecli.shards.datasets import defaults_for, function_of
    from densecli.shards.store import Store

    if listed or not spec:
        known = {name: str(path) for name, path in shipped().items()}
        say("\n".join(f"{name:24} {path}" for name, path in known.items()), json_file, known)
        return
    runner: Runner = ctx.obj["ablate"]()
    opened = Store.open(store or newest_store())
    path = find_spec(spec, opened.dataset["name"])
    folder = Path(run or f"runs/ablate-{path.stem}")
    asked = load_spec(path, runner.flags)
    asked = replace(asked, train={**asked.train, "store": opened.root})
    dataset = defaults_for(opened.dataset["name"])
    annotated = dataset.annotated if "data" not in asked.evaluate else ""
    if annotated:
        asked = measured_on(asked, folder / "data", dataset)
    parsed(evaluate, arguments(asked.evaluate))
    if dry_run:
        check(asked, runner)
        lines = [f"densecli train {shlex.join(c.arguments)} --run {folder / c.name}" for c in cells(asked)]
        say("\n".join(lines), json_file, {"commands": lines})
        return
    if annotated:
        where = asked.evaluate
        function_of(annotated)(folder / "data", split=where["split"], count=where["limit"])
    results = run_all(asked, folder, runner, canvas=opened.canvas, resume=resume)
    finished = [result for result in results if result.settings and not result.error]
    costs = teacher_costs(opened, [photos_seen(folder / result.name) for result in finished])
    page = write_report(folder, asked, results, costs)
    value = {
        "spec": str(path),
        "runs": [asdict(result) for result in results],
        "teacher_costs": [asdict(cost) for cost in costs],
        "page": str(page),
    }
    say(f"{summary(results, costs, title=asked.title)}\n\nTables and charts: {page}", json_file, value)
    if any(result.error for result in results):
        ctx.exit(1)


@click.command()
@click.argument("key")
@click.option("--teacher", "teachers", multiple=True, metavar="NAME", help="A column, else all. May repeat.")
@click.option("--view", type=click.IntRange(0), default=6, show_default=True, help="Whose cells are drawn.")
@click.option(
    "--point",
    type=(click.FloatRange(0, 1), click.FloatRange(0, 1)),
    default=(0.5, 0.5),
    show_default=True,
    metavar="X Y",
    help="To which affinities are drawn, as shares of the photo.",
)
@click.option(
    "--theta",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Also the cells as a loss with theta keeps them.",
)
@click.option("--live", is_flag=True, help="Beside stored maps, the teacher's own.")
@click.option("--out", metavar="FILE", help="The picture, a PNG [KEY.png].")
@flags("store", "run", "weights", "device", "json")
@click.pass_context
def preview(
    ctx: click.Context,
    key: str,
    teachers: tuple[str, ...],
    view: int,
    point: tuple[float, float],
    theta: float | None,
    live: bool,
    out: str | None,
    store: str | None,
    run: str | None,
    weights: Sequence[tuple[str, str]],
    device: str,
    json_file: str | None,
) -> None:
    """Draw what is stored of one photo: cells and labels, affinities of a point, crops.

    With --run also the affinities of its student, before and after.

    \b
    densecli preview 000000000009 --store stores/coco-512 --point 0.4 0.6
    """
    from densecli.evaluation.preview import PreviewRequest, draw_preview
    from densecli.shards.store import Store

    opened = Store.open(store or newest_store())
    students = {}
    if run:
        from densecli.core.device import pick_device
        from densecli.evaluation.model_under_test import ModelUnderTest

        for name, subject in {
            "before": ModelUnderTest.before_run(run),
            "after": ModelUnderTest.of_run(run),
        }.items():
            students[name] = subject.token_map((subject.settings or {})["mode"], pick_device(device))

    tell = ctx.obj["preview"](opened, weights=dict(weights), device=device) if live else None
    columns = [opened.find("targets", name) for name in teachers] or opened.columns("targets")
    request = PreviewRequest(
        key=key, view=view, point=point, theta=theta, live_teacher=tell, students=students
    )
    drawn = draw_preview(opened, columns, request)
    file = out or f"{key}.png"
    drawn.save(file)
    names = [column.full_name for column in columns]
    say(f"{', '.join(names)}: {file}", json_file, {"picture": file, "columns": names})
