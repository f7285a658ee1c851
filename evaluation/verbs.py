"""The verbs that measure."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shards.flags import flags, given, newest_store, say, write_json

if TYPE_CHECKING:
    from evaluation.ablation import Runner


@click.command()
@click.option("--mode", metavar="NAME", help="How the last block is read out.")
@click.option("--classes", is_flag=True, help="Print a row per class as well.")
@click.option("--coupling", is_flag=True, help="Only how alike the tokens of different segments are.")
@click.option("--refiner", metavar="FILE", help="With --coupling: also of the model's Refiner.")
@flags("data", "split", "limit", "run", "student", "weights", "categories", "text-embeddings", "canvas")
@flags("batch-size", "device", "json")
def evaluate(
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
    coupling: bool,
    refiner: str | None,
    json_file: str | None,
    **settings: Any,
) -> None:
    """Region classification on a panoptic dataset: Boxes, Masks-T, Masks-S, stuff called a thing.

    \b
    densecli evaluate --data data/coco --split val2017 --run runs/densevlm-eva02-b16-coco-512
    """
    from evaluation.classify import ClassifyConfig
    from evaluation.coupling import evaluate_coupling
    from evaluation.region import Subject, evaluate_regions
    from evaluation.report import class_table, coupling_table, report
    from models.checkpoints import weights_given

    path = weights_given(student, weights) if student else None
    subject = Subject.of_run(run) if run else Subject(model=student or "eva02-b16", weights=path)
    where: dict[str, Any] = {
        "data": data or "data/coco",
        "split": split or "val2017",
        "limit": limit,
        "categories": categories or "133",
        "device": device,
        "config": ClassifyConfig(**{**(subject.settings or {}), **given(settings)}),
    }
    if coupling:
        ratios = evaluate_coupling(subject, refiner, **where)
        write_json(json_file, ratios)
        click.echo(coupling_table(ratios))
        return
    result = evaluate_regions(subject, text_embeddings_file=text_embeddings, **where)
    write_json(json_file, {subject.title: result.to_dict()})
    click.echo(report({subject.title: result}))
    if classes:
        click.echo(class_table(result))


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
@click.option("--out", metavar="FILE", help="The picture [KEY.png].")
@flags("store", "json")
def preview(
    key: str,
    teachers: tuple[str, ...],
    view: int,
    point: tuple[float, float],
    out: str | None,
    store: str | None,
    json_file: str | None,
) -> None:
    """Draw what is stored of one photo: cells and labels, affinities of a point, crops.

    \b
    densecli preview 000000000009 --store stores/coco-512 --point 0.4 0.6
    """
    from evaluation.sample import picture
    from shards.store import Store

    opened = Store.open(store or newest_store())
    columns = [opened.find("targets", name) for name in teachers] or opened.columns("targets")
    file = out or f"{key}.png"
    picture(opened, columns, key, view=view, point=point).save(file)
    names = [f"{column.name}-{column.id}" for column in columns]
    say(f"{', '.join(names)}: {file}", json_file, {"picture": file, "columns": names})


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
    from evaluation.ablation import check, photos_seen, run_all
    from evaluation.ablation_page import summary, write_outcome
    from evaluation.bill import bill
    from evaluation.spec import cells, find_spec, load_spec, parsed, shipped, with_scenes, words
    from shards.store import Store

    if listed or not spec:
        known = {name: str(path) for name, path in shipped().items()}
        say("\n".join(f"{name:24} {path}" for name, path in known.items()), json_file, known)
        return
    runner: Runner = ctx.obj()
    opened = Store.open(store or newest_store())
    path = find_spec(spec, opened.dataset["name"])
    folder = Path(run or f"runs/ablate-{path.stem}")
    asked = load_spec(path, runner.flags)
    asked = replace(asked, train={**asked.train, "store": opened.root})
    generated = opened.dataset["name"] == "scenes" and "data" not in asked.evaluate
    if generated:
        asked = with_scenes(asked, folder / "data")
    parsed(evaluate, words(asked.evaluate))
    if dry_run:
        check(asked, runner)
        lines = [f"densecli train {shlex.join(c.words)} --run {folder / c.name}" for c in cells(asked)]
        say("\n".join(lines), json_file, {"commands": lines})
        return
    if generated:
        where = asked.evaluate
        runner.scenes(folder / "data", split=where["split"], count=where["limit"])
    done = run_all(asked, folder, runner, canvas=opened.canvas, resume=resume)
    charges = bill(opened, [photos_seen(folder / r.name) for r in done if r.settings and not r.error])
    page = write_outcome(folder, asked, done, charges)
    value = {
        "spec": str(path),
        "runs": [asdict(result) for result in done],
        "bill": [asdict(charge) for charge in charges],
        "page": str(page),
    }
    say(f"{summary(done, charges, title=asked.title)}\n\nTables and plots: {page}", json_file, value)
    if any(result.error for result in done):
        ctx.exit(1)
