"""The command line: verbs by name, imported when they are called."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from densecli.commands.flags import flags, write_json
from densecli.core.errors import DenseCLIError

if TYPE_CHECKING:
    from densecli.ablation.runs import Runner
    from densecli.evaluation.sample import Live
    from densecli.shards.store import Column, Store

# Where each verb is; those that need several packages are here.
VERBS: Mapping[str, str] = {
    "build-shards": "densecli.commands.pipeline_commands:build_shards",
    "relabel": "densecli.commands.pipeline_commands:relabel",
    "train": "densecli.commands.train_commands:train",
    "train-refiner": "densecli.commands.train_commands:train_refiner",
    "export": "densecli.commands.train_commands:export",
    "evaluate": "densecli.commands.evaluation_commands:evaluate",
    "plan": "densecli.commands.pipeline_commands:plan",
    "info": "densecli.commands.store_commands:info",
    "lint": "densecli.commands.store_commands:lint",
    "verify": "densecli.commands.pipeline_commands:verify",
    "preview": "densecli.commands.evaluation_commands:preview",
    "ablate": "densecli.commands.evaluation_commands:ablate",
    "categories": "densecli.commands.categories:categories",
    "gc": "densecli.commands.store_commands:gc",
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
    # What verbs of `evaluation` need of the packages that it cannot know: to train, to ask a teacher.
    ctx.obj = {"ablate": ablation_runner, "preview": live_teacher}


def planning(build: click.Command) -> click.Command:
    """`plan` of the flags of a build and of a training, which are two packages'."""
    from densecli.commands.train_commands import train

    @click.pass_context
    def plan(ctx: click.Context, **settings: Any) -> None:
        from densecli.models.defaults import defaults_for
        from densecli.pipeline.teachers import kind_of
        from densecli.train.columns import default_teacher
        from densecli.train.config import TrainerConfig
        from densecli.train.methods import find_method, parse_losses, term_and_kind

        asked = {name: settings.pop(name) for name in TRAINING}
        dataset, teachers = settings["dataset"], settings["teachers"]
        student = asked["student"] or defaults_for(dataset).student
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
        a_step = (settings["batch_size"] or TrainerConfig.batch_size) * (asked["accumulate"] or 1)
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
    from densecli.evaluation.classify import ClassifyConfig
    from densecli.evaluation.model_under_test import ModelUnderTest, evaluate_regions
    from densecli.evaluation.report import comparison
    from densecli.pipeline.build_shards import BuildConfig
    from densecli.pipeline.build_shards import build_shards as build
    from densecli.scenes.coco import write_coco
    from densecli.scenes.demo_page import write_demo
    from densecli.scenes.vocabulary import IMAGE_SIZE
    from densecli.shards.store import Store
    from densecli.train.distillation import TrainConfig
    from densecli.train.distillation import train as fit

    folder = Path(run or ("runs/pretrain" if pretrain else "runs/demo"))
    student, pvlm = None, {}
    if pretrain:
        import torch

        from densecli.scenes.pretrain import PretrainConfig, pretrain_models, tune_pvlm

        # torch counts cores; these small layers gain from their hyperthreads as well.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        weights = folder / "weights"
        pretrain_models(PretrainConfig(seed=seed), weights)
        tune_pvlm(weights, lambda **asked: fit(TrainConfig(**asked)), seed=seed, device=device)
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
    began = ModelUnderTest(model="scenes-s", weights=student)
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
    ended = ModelUnderTest.of_run(settings.run)
    after = evaluate_regions(ended, **where)
    click.echo(f"\n{comparison(before, after).text()}\n")

    subjects, results = {"before": began, "after": ended}, {"before": before, "after": after}
    write_demo(folder, Store.open(store), labels, settings.theta, subjects, results, where)
    write_json(json_file, {"before": before.to_dict(), "after": after.to_dict()})


def ablation_runner() -> "Runner":
    """What the words of an ablation's runs do, in this process."""
    from densecli.ablation.runs import Runner
    from densecli.ablation.spec import flags_of, parsed
    from densecli.commands.evaluation_commands import evaluate
    from densecli.commands.train_commands import train, train_config
    from densecli.scenes.coco import write_coco
    from densecli.shards.store import Store
    from densecli.train.distillation import columns_read
    from densecli.train.distillation import train as fit

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


def live_teacher(store: "Store", *, weights: Mapping[str, str], device: str) -> "Live":
    """What the teachers of a store's maps say now, for `preview`."""
    from densecli.evaluation.sample import find_record
    from densecli.pipeline.verify import VerifyConfig, live_target, regions_beside

    asked = VerifyConfig(store=store.root, weights=weights, device=device)

    def tell(column: "Column", key: str) -> Any:
        return live_target(store, column, find_record(store, [regions_beside(store, column)], key), asked)

    return tell


if __name__ == "__main__":
    main()
