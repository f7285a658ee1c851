"""The command line: thin click verbs, no logic. Heavy packages are imported by the verb that needs them."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from shards.errors import DenseCLIError


class Verbs(click.Group):
    """A group whose failures are one sentence and a hint: exit 1. Usage errors are click's: exit 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DenseCLIError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            if error.hint:
                click.echo(f"Hint: {error.hint}", err=True)
            ctx.exit(1)


class Pairs(click.ParamType):
    """NAME=VALUE, to (NAME, VALUE)."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        name, equals, rest = value.partition("=")
        if not (name and equals and rest):
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, rest


def flags(*names: str) -> Callable[[Callable], Callable]:
    """The named flags of FLAGS, so that a flag means the same in every verb."""

    def decorate(verb: Callable) -> Callable:
        for name in reversed(names):
            verb = FLAGS[name](verb)
        return verb

    return decorate


FLAGS: dict[str, Callable[[Callable], Callable]] = {
    "data": click.option("--data", metavar="DIR", help="Folder of the photos [data/<dataset>]."),
    "split": click.option("--split", metavar="NAME", help="Split of the dataset."),
    "limit": click.option(
        "--limit", type=click.IntRange(1), metavar="N", help="Use the first N photos only."
    ),
    "store": click.option("--store", metavar="URL", help="The store [stores/<dataset>-<canvas>]."),
    "run": click.option("--run", metavar="DIR", help="Folder of the run."),
    "weights": click.option(
        "--weights",
        type=Pairs(),
        multiple=True,
        metavar="NAME=PATH",
        help="Weights of a model, else weights/NAME.*; NAME=random:SEED for random ones. May repeat.",
    ),
    "student": click.option("--student", metavar="NAME", help="Architecture of the student."),
    "batch-size": click.option("--batch-size", type=click.IntRange(1), metavar="N"),
    "seed": click.option("--seed", type=int, default=0, show_default=True),
    "device": click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:N]."),
    "categories": click.option(
        "--categories", metavar="SET|FILE", help="133, 171, 273, 316, ade150, scenes, or a json or csv file."
    ),
    "text-embeddings": click.option(
        "--text-embeddings", metavar="FILE", help=".npy with a row per category [the model's text tower]."
    ),
    "canvas": click.option("--canvas", type=click.IntRange(16), metavar="PX", help="Side of the canvas."),
    "json": click.option(
        "--json", "json_file", metavar="FILE", help="Write the result as JSON (- for stdout)."
    ),
}


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="densecli")
def main(debug: bool) -> None:
    """Run vision-language teachers once, train dense students from their shards."""


@main.command("build-shards")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="NAME",
    help="MODEL (labels), crops-MODEL, self-MODEL, or a VFM such as dinov2-vitb14. May repeat.",
)
@click.option(
    "--dataset", type=click.Choice(["coco", "folder", "scenes"]), default="scenes", show_default=True
)
@click.option("--regions", default="grid-paper", show_default=True, metavar="PLAN", help="Region plan.")
@click.option("--proposals", metavar="FILE", help="Boxes for --regions proposals, a COCO-style json.")
@click.option("--shard-size", type=click.IntRange(1), metavar="N", help="Photos in a shard.")
@click.option("--workers", type=click.IntRange(1), help="Processes, each with its own teachers.")
@click.option("--tau", type=click.FloatRange(0, min_open=True), help="Softmax temperature of the retrieval.")
@click.option("--views", type=click.IntRange(1), metavar="K", help="Views of a photo that get crops.")
@click.option("--codec", type=click.Choice(["int8", "fp16", "fp32"]), help="Of crops and token factors.")
@click.option("--rank", type=click.IntRange(1), help="Of token factors.")
@click.option(
    "--gram-rmse",
    type=click.FloatRange(0, min_open=True),
    help="RMSE of the cosines to keep, in place of a rank.",
)
@click.option(
    "--student-patch", type=click.IntRange(1), metavar="PX", help="Token stride of the students to come."
)
@click.option("--templates", metavar="NAME", help="Prompts of the categories: plain or imagenet.")
@click.option(
    "--max-unreadable", type=click.IntRange(1), metavar="N", help="Unreadable photos in a row to stop at."
)
@click.option("--dry-run", is_flag=True, help="Say what is missing, write nothing.")
@flags("data", "split", "limit", "store", "canvas", "weights", "categories", "text-embeddings")
@flags("batch-size", "seed", "device", "json")
def build_shards(weights: Sequence[tuple[str, str]], json_file: str | None, **settings: Any) -> None:
    """Ask the teachers once and write what they say into a store.

    \b
    densecli build-shards --teacher vitl14 --dataset coco --split train2017
    """
    from pipeline.driver import BuildConfig
    from pipeline.driver import build_shards as build

    summary = build(BuildConfig(weights=dict(weights), **_given(settings)))
    _write_json(json_file, summary)
    for column in summary["columns"]:
        click.echo(f"{column['kind']:8} {column['name']}-{column['id']}  {column['shards']} shards")
    counts = f", {summary['samples']} photos" if "samples" in summary else ""
    skipped = ", ".join(f"{n} {reason}" for reason, n in summary.get("skipped", {}).items())
    click.echo(
        f"{summary['store']}: {summary['status']}{counts}" + (f"; skipped {skipped}" if skipped else "")
    )


@main.command()
@click.option("--method", default="densevlm", show_default=True, metavar="NAME", help="Preset of loss terms.")
@click.option(
    "--loss",
    "losses",
    multiple=True,
    metavar="TERM[:KIND]=W",
    help="A weighted term (and the kind of column it reads), in place of the method's.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="NAME",
    help="A target column, where the store has several of its kind.",
)
@click.option("--regions", metavar="PLAN", help="Region plan, where no target column says which.")
@click.option("--mode", metavar="NAME", help="How the student's last block is read out.")
@click.option("--tau", type=click.FloatRange(0, min_open=True), help="Softmax temperature.")
@click.option("--theta", type=click.FloatRange(0, 1), help="Regions less sure than this are left out.")
@click.option("--decoupling", type=click.IntRange(1, 4), help="Row of the decoupling table (4: the paper's).")
@click.option(
    "--beta", type=click.FloatRange(0, 1), help="Weight of Stuff for Thing regions, in place of the row's."
)
@click.option("--epochs", type=click.IntRange(1))
@click.option("--max-steps", type=click.IntRange(1), help="Stop after this many steps, whatever the epochs.")
@click.option("--lr", type=click.FloatRange(0, min_open=True))
@click.option("--alpha", type=click.FloatRange(0, 1), help="Share of the student in the exported average.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]))
@click.option("--resume", type=click.Choice(["interrupted", "never", "overwrite"]))
@flags("store", "run", "student", "weights", "text-embeddings", "batch-size", "seed", "device", "json")
def train(
    weights: Sequence[tuple[str, str]],
    losses: Sequence[str],
    store: str | None,
    run: str | None,
    student: str | None,
    json_file: str | None,
    **settings: Any,
) -> None:
    """Train a student from a store.

    \b
    densecli train --store stores/coco-512 --student eva02-b16
    """
    from shards.store import Store
    from train.methods import parse_losses
    from train.trainer import TrainConfig
    from train.trainer import train as fit

    store = store or _newest_store()
    student = student or ("scenes-s" if Store.open(store).dataset["name"] == "scenes" else "eva02-b16")
    result = fit(
        TrainConfig(
            store=store,
            run=run or f"runs/{settings['method']}-{student}-{Path(store).name}",
            student=student,
            weights=_weights_of(student, weights),
            losses=parse_losses(losses) if losses else None,
            **_given(settings),
        )
    )
    _write_json(json_file, result)
    random = " (random weights)" if result["random_weights"] else ""
    click.echo(f"step {result['step']}, loss {result['loss']:.4f}{random}: {result['export']}")


@main.command()
@click.option("--mode", metavar="NAME", help="How the last block is read out.")
@click.option("--classes", is_flag=True, help="Print a row per class as well.")
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
    json_file: str | None,
    **settings: Any,
) -> None:
    """Region classification on a panoptic dataset: Boxes, Masks-T, Masks-S, stuff called a thing.

    \b
    densecli evaluate --data data/coco --split val2017 --run runs/densevlm-eva02-b16-coco-512
    """
    from evaluation.classify import ClassifyConfig
    from evaluation.region import Subject, evaluate_regions
    from evaluation.report import class_table, report

    given = _weights_of(student, weights) if student else None
    subject = Subject.of_run(run) if run else Subject(model=student or "eva02-b16", weights=given)
    result = evaluate_regions(
        subject,
        data=data or "data/coco",
        split=split or "val2017",
        limit=limit,
        categories=categories or "133",
        text_embeddings_file=text_embeddings,
        device=device,
        config=ClassifyConfig(**{**(subject.settings or {}), **_given(settings)}),
    )
    _write_json(json_file, {subject.title: result.to_dict()})
    click.echo(report({subject.title: result}))
    if classes:
        click.echo(class_table(result))


@main.command()
@click.option("--scenes", type=click.IntRange(1), default=480, show_default=True, help="Scenes to train on.")
@click.option(
    "--test-scenes", type=click.IntRange(1), default=300, show_default=True, help="Scenes to test on."
)
@click.option("--max-steps", type=click.IntRange(1), default=300, show_default=True)
@click.option(
    "--pretrain", is_flag=True, help="Instead, train the world's own CLIPs again: an hour of 2 cores."
)
@flags("run", "seed", "device", "json")
def demo(
    scenes: int,
    test_scenes: int,
    max_steps: int,
    pretrain: bool,
    run: str | None,
    seed: int,
    device: str,
    json_file: str | None,
) -> None:
    """The whole chain on the generated world: build shards, train, evaluate before and after.

    \b
    densecli demo --seed 1 --json demo.json
    """
    folder = Path(run or "runs/demo")
    if pretrain:
        import torch

        from pipeline.scenes.pretrain import PretrainConfig
        from pipeline.scenes.pretrain import pretrain as pretrain_clips

        # torch counts cores; these small layers gain from their hyperthreads as well.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        record = pretrain_clips(PretrainConfig(seed=seed), folder / "weights")
        _write_json(json_file, record)
        click.echo(f"{json.dumps(record['models'], indent=1)}\nThe weights are in {folder / 'weights'}.")
        return

    from evaluation.classify import ClassifyConfig
    from evaluation.preview import contact_sheet
    from evaluation.region import Subject, evaluate_regions
    from evaluation.report import comparison
    from evaluation.retrieved import retrieved_views
    from models.scenes import IMAGE_SIZE
    from pipeline.driver import BuildConfig
    from pipeline.driver import build_shards as build
    from pipeline.scenes.coco import write_coco
    from shards.store import Store
    from train.trainer import TrainConfig
    from train.trainer import train as fit

    def measure(subject: Subject) -> Any:
        return evaluate_regions(
            subject,
            data=str(folder / "data"),
            split="test",
            categories="scenes",
            device=device,
            config=ClassifyConfig(canvas=IMAGE_SIZE, batch_size=50),
        )

    click.echo(f"1/4 The P-VLM reads {scenes} scenes, once.")
    settings = TrainConfig(
        store=str(folder / f"store-{seed}-{scenes}"),
        run=str(folder / f"train-{seed}-{scenes}"),
        student="scenes-s",
        max_steps=max_steps,
        batch_size=24,
        lr=3e-4,
        # This P-VLM is surer of itself than a real one, also where it is wrong: chosen on val scenes.
        theta=0.8,
        seed=seed,
        device=device,
        resume="overwrite",
    )
    build(
        BuildConfig(
            dataset="scenes",
            split="train",
            limit=scenes,
            seed=seed,
            store=settings.store,
            teachers=("scenes-pvlm",),
            device=device,
        )
    )
    click.echo(f"2/4 The student before, on {test_scenes} other scenes.")
    write_coco(folder / "data", seed=0, split="test", count=test_scenes)
    before = measure(Subject(model="scenes-s"))
    click.echo("3/4 The student learns from the shards.")
    fit(settings)
    click.echo("4/4 The student after.")
    after = measure(Subject.of_run(settings.run))
    click.echo(f"\n{comparison(before, after)}\n")

    opened = Store.open(settings.store)
    labels = opened.find("targets", "scenes-pvlm")
    picture = folder / "preview.png"
    contact_sheet(retrieved_views(opened, labels, view=6, limit=6)).save(picture)
    click.echo(f"Grid cells and retrieved labels: {picture}")
    _write_json(json_file, {"before": before.to_dict(), "after": after.to_dict()})


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings somebody gave: the others keep the defaults of the config they go to."""
    return {name: value for name, value in settings.items() if value is not None and value != ()}


def _weights_of(model: str, weights: Sequence[tuple[str, str]]) -> str | None:
    """The weights given for a model, under its name or an alias of it."""
    from models.registry import ALIASES

    wanted = ALIASES.get(model, model)
    given = {ALIASES.get(name, name): path for name, path in weights}
    if stray := sorted(set(given) - {wanted}):
        raise DenseCLIError(
            f"There are weights for {stray[0]}, which is not used here.", hint=f"Write {model}=PATH."
        )
    return given.get(wanted)


def _newest_store() -> str:
    stores = sorted(Path("stores").glob("*/store.json"), key=lambda path: path.stat().st_mtime)
    if not stores:
        raise DenseCLIError(
            "There is no store in stores/.",
            hint="Build one with densecli build-shards, or name it with --store.",
        )
    click.echo(f"Training from the newest store, {stores[-1].parent}.", err=True)
    return str(stores[-1].parent)


def _write_json(file: str | None, value: Any) -> None:
    if file == "-":
        json.dump(value, sys.stdout, indent=1)
        sys.stdout.write("\n")
    elif file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
