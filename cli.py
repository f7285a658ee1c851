"""The command line: verbs by name, imported when they are called."""

import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from shards.errors import DenseCLIError
from shards.flags import flags, newest_store, say, write_json

if TYPE_CHECKING:
    from evaluation.ablation import Runner

# Where each verb is; those that need several packages are here.
VERBS: Mapping[str, str] = {
    "build-shards": "pipeline.verbs:build_shards",
    "relabel": "pipeline.verbs:relabel",
    "train": "train.verbs:train",
    "train-refiner": "train.verbs:train_refiner",
    "export": "train.verbs:export",
    "evaluate": "evaluation.verbs:evaluate",
    "plan": "pipeline.verbs:plan",
    "info": "shards.verbs:info",
    "lint": "shards.verbs:lint",
    "verify": "pipeline.verbs:verify",
    "ablate": "evaluation.verbs:ablate",
    "categories": "models.verbs:categories",
    "gc": "shards.verbs:gc",
}


# The flags of `train` that `plan` takes too: what is read, by whom, and for how long.
TRAINING = (
    "method", "losses", "student", "image_size", "epochs", "seen_samples", "max_steps", "accumulate",
)  # fmt: skip


class Verbs(click.Group):
    """A group whose failures are one sentence and a hint: exit 1, or 128 + the signal that was the cause.

    Usage errors are click's: exit 2.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return super().get_command(ctx, name)
        module, _, verb = VERBS[name].partition(":")
        command = getattr(import_module(module), verb)
        return planning(command) if name == "plan" else command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DenseCLIError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            if error.hint:
                click.echo(f"Hint: {error.hint}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Error: stopped.", err=True)
            ctx.exit(130)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="densecli")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Run vision-language teachers once, train dense students from their shards."""
    # Ablations train and measure: `evaluation` cannot know how to do the former.
    ctx.obj = ablation_runner


def planning(build: click.Command) -> click.Command:
    """`plan` of the flags of a build and of a training, which are two packages'."""
    from train.verbs import train

    @click.pass_context
    def plan(ctx: click.Context, **settings: Any) -> None:
        from models.registry import default_student
        from pipeline.teachers import kind_of
        from train.columns import default_teacher
        from train.loop import LoopConfig
        from train.methods import find_method, parse_losses, term_and_kind

        asked = {name: settings.pop(name) for name in TRAINING}
        dataset, teachers = settings["dataset"], settings["teachers"]
        student = asked["student"] or default_student(dataset)
        training = {"student": student, "image_size": asked["image_size"]}
        named = ctx.get_parameter_source("method") is not ParameterSource.DEFAULT
        if asked["losses"] or named:
            losses = parse_losses(asked["losses"]) or find_method(asked["method"]).losses
            reads = frozenset(term_and_kind(loss)[1] for loss in losses)
            there = {{"features": "labels"}.get(kind := kind_of(name), kind) for name in teachers}
            settings["teachers"] += tuple(
                default_teacher(dataset, kind, student) for kind in sorted(reads - there)
            )
            training["reads"] = reads
        a_step = (settings["batch_size"] or LoopConfig.batch_size) * (asked["accumulate"] or 1)
        if seen := (asked["max_steps"] or 0) * a_step or asked["seen_samples"]:
            training["seen"] = seen
        elif asked["epochs"]:
            training["epochs"] = asked["epochs"]
        ctx.invoke(build, training=training, **settings)

    flags = [flag for flag in train.params if flag.name in TRAINING]
    return click.Command("plan", params=[*build.params, *flags], callback=plan, help=build.help)


@main.command()
@click.option("--scenes", type=click.IntRange(1), default=480, show_default=True, help="Scenes to train on.")
@click.option(
    "--test-scenes", type=click.IntRange(1), default=300, show_default=True, help="Scenes to test on."
)
@click.option("--max-steps", type=click.IntRange(1), default=300, show_default=True)
@click.option(
    "--pretrain",
    is_flag=True,
    help="Before, train the world's own models again: an hour of 2 cores. Those in RUN/weights are kept.",
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
    from evaluation.classify import ClassifyConfig
    from evaluation.confusion import confusion_pictures
    from evaluation.page import Figure, Section
    from evaluation.preview import contact_sheet, row_of
    from evaluation.region import Subject, evaluate_regions
    from evaluation.region_page import write_region_page
    from evaluation.report import comparison
    from evaluation.retrieved import retrieved_views
    from models.scenes import IMAGE_SIZE
    from pipeline.driver import BuildConfig
    from pipeline.driver import build_shards as build
    from pipeline.scenes.coco import write_coco
    from shards.store import Store
    from train.trainer import TrainConfig
    from train.trainer import train as fit

    folder = Path(run or ("runs/pretrain" if pretrain else "runs/demo"))
    student, pvlm = None, {}
    if pretrain:
        import torch

        from pipeline.scenes.pretrain import PretrainConfig, pretrain_models

        # torch counts cores; these small layers gain from their hyperthreads as well.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        weights = folder / "weights"
        pretrain_models(PretrainConfig(seed=seed), weights)
        tune_pvlm(weights, seed=seed, device=device)
        student = str(weights / "scenes-s.safetensors")
        pvlm = {"scenes-pvlm": str(weights / "scenes-pvlm.safetensors")}

    where: dict[str, Any] = {
        "data": str(folder / "data"),
        "split": "test",
        "categories": "scenes",
        "config": ClassifyConfig(canvas=IMAGE_SIZE, batch_size=50),
        "device": device,
    }

    click.echo(f"1/4 The P-VLM reads {scenes} scenes, once.")
    store = str(folder / f"store-{seed}-{scenes}")
    built = build(
        BuildConfig(
            dataset="scenes",
            split="train",
            limit=scenes,
            seed=seed,
            store=store,
            teachers=("scenes-pvlm",),
            weights=pvlm,
            device=device,
        )
    )
    # Of several P-VLMs that the store may know, the one that just spoke.
    labels = "{name}-{id}".format(**built["columns"][-1])
    click.echo(f"2/4 The student before, on {test_scenes} other scenes.")
    write_coco(folder / "data", seed=0, split="test", count=test_scenes)
    began = Subject(model="scenes-s", weights=student)
    before = evaluate_regions(began, **where)
    click.echo("3/4 The student learns from the shards.")
    settings = TrainConfig(
        store=store,
        run=str(folder / f"train-{seed}-{scenes}"),
        student="scenes-s",
        weights=student,
        teachers=(labels,),
        max_steps=max_steps,
        batch_size=24,
        lr=3e-4,
        # Chosen on val scenes: DenseVLM's own (0.3, and Stuff left out altogether) halves Boxes at this rate.
        theta=0.8,
        beta=0.3,
        seed=seed,
        device=device,
        resume="overwrite",
    )
    fit(settings)
    click.echo("4/4 The student after.")
    ended = Subject.of_run(settings.run)
    after = evaluate_regions(ended, **where)
    click.echo(f"\n{comparison(before, after).text()}\n")

    opened = Store.open(store)
    cells, confusion = folder / "preview.png", folder / "confusion.png"
    column = opened.find("targets", labels)
    views = [
        view
        for theta in (None, settings.theta)
        for view in retrieved_views(opened, column, view=12, limit=3, theta=theta)
    ]
    taught = contact_sheet(views, min_side=360)
    taught.save(cells)
    click.echo(f"Grid cells, their retrieved labels, and what the loss keeps of them: {cells}")
    pictures = dict(zip(("before", "after"), confusion_pictures([before, after]), strict=True))
    row_of(pictures).save(confusion)
    click.echo(f"What is called what, before and after: {confusion}")
    labelled = Figure(
        title="",
        image=taught,
        alt="Three scenes with the label and confidence of each cell; below, those that the loss keeps.",
        note=f"Above all cells of a view, below those with a confidence above theta {settings.theta:g}.",
        width=taught.width,
    )
    page = write_region_page(
        folder / "report",
        {"before": began, "after": ended},
        {"before": before, "after": after},
        more=[Section(title="What the P-VLM said", parts=[labelled])],
        **where,
    )
    click.echo(f"Report: {page.resolve().as_uri()}")
    write_json(json_file, {"before": before.to_dict(), "after": after.to_dict()})


def ablation_runner() -> "Runner":
    """What the words of an ablation's runs do, in this process."""
    from evaluation.ablation import Runner
    from evaluation.spec import flags_of, parsed
    from evaluation.verbs import evaluate
    from pipeline.scenes.coco import write_coco
    from shards.store import Store
    from train.trainer import columns_read
    from train.trainer import train as fit
    from train.verbs import train, train_config

    def config(words: Sequence[str]) -> Any:
        settings = parsed(train, words)
        settings.pop("json_file")
        return train_config(**settings)

    def columns(words: Sequence[str]) -> dict[str, str]:
        asked = config(words)
        return {kind: c.key for kind, c in columns_read(Store.open(asked.store), asked)[1].items()}

    def measure(words: Sequence[str]) -> Any:
        with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            file = Path(folder) / "result.json"
            # Not evaluate.main, to which Ctrl-C is an error like others.
            with evaluate.make_context("evaluate", [*words, "--json", str(file)]) as context:
                evaluate.invoke(context)
            return json.loads(file.read_text())

    return Runner(
        flags={"train": flags_of(train), "evaluate": flags_of(evaluate)},
        columns=columns,
        train=lambda words: fit(config(words)),
        evaluate=measure,
        scenes=partial(write_coco, seed=0),
    )


@main.command()
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
def preview(
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
    from evaluation.sample import find_record, picture
    from shards.store import Store

    opened = Store.open(store or newest_store())
    students = {}
    if run:
        from evaluation.looks import token_map
        from evaluation.region import Subject
        from models.device import pick_device

        for name, subject in {"before": Subject.before_run(run), "after": Subject.of_run(run)}.items():
            students[name] = token_map(subject, (subject.settings or {})["mode"], pick_device(device))

    def tell(column: Any, key: str) -> Any:
        from pipeline.verify import VerifyConfig, live_target, regions_beside

        asked = VerifyConfig(store=opened.root, weights=dict(weights), device=device)
        return live_target(opened, column, find_record(opened, [regions_beside(opened, column)], key), asked)

    columns = [opened.find("targets", name) for name in teachers] or opened.columns("targets")
    drawn = picture(
        opened,
        columns,
        key,
        view=view,
        point=point,
        theta=theta,
        live=tell if live else None,
        students=students,
    )
    file = out or f"{key}.png"
    drawn.save(file)
    names = [f"{column.name}-{column.id}" for column in columns]
    say(f"{', '.join(names)}: {file}", json_file, {"picture": file, "columns": names})


def tune_pvlm(weights: Path, *, seed: int, device: str, scenes: int = 2000, max_steps: int = 1000) -> None:
    """CLIPSelf as the product does it: what scenes-l says of crops, stored once, teaches its dense map.

    Reads scenes-l in the folder `weights`, writes scenes-pvlm beside it unless it is there.
    """
    from models.checkpoints import read_state_dict
    from pipeline.driver import BuildConfig, build_shards
    from pipeline.scenes.pretrain import record, save_half
    from train.trainer import TrainConfig, train

    tuned, clip = weights / "scenes-pvlm.safetensors", str(weights / "scenes-l.safetensors")
    if tuned.exists():
        return
    started = time.monotonic()
    build = BuildConfig(
        dataset="scenes",
        split="pretrain",
        limit=scenes,
        seed=seed,
        store=str(weights.with_name(f"crops-{seed}-{scenes}")),
        regions="grid-square",
        views=5,
        shard_size=250,
        workers=len(os.sched_getaffinity(0)),
        teachers=("crops-scenes-l",),
        weights={"scenes-l": clip},
        device=device,
    )
    crops = build_shards(build)["columns"][-1]
    result = train(
        TrainConfig(
            store=str(build.store),
            run=str(weights.with_name(f"clipself-{seed}-{scenes}")),
            student="scenes-l",
            weights=clip,
            method="clipself",
            teachers=("{name}-{id}".format(**crops),),
            max_steps=max_steps,
            batch_size=24,
            lr=6e-4,
            alpha=1.0,
            seed=seed,
            device=device,
            resume="overwrite",
        )
    )
    save_half(read_state_dict(result["export"]), tuned)
    row = {
        "trained": "CLIPSelf by build-shards and train, from scenes-l",
        "steps": result["step"],
        "loss": round(result["loss"], 4),
        "seconds": round(time.monotonic() - started),
    }
    record(weights, "scenes-pvlm", row, {"clipself": {"scenes": scenes, "max_steps": max_steps}})


if __name__ == "__main__":
    main()
