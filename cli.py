"""The command line: verbs by name, imported when they are called."""

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from densecli.core.errors import DenseCLIError
from densecli.core.registry import Registry, registry

if TYPE_CHECKING:
    from densecli.ablation.runs import Runner
    from densecli.evaluation.preview import LiveTeacher
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

COMMANDS: Registry[click.Command] = registry("commands", noun="command")
"""Commands of plug-ins."""

# The flags of `train` that `plan` takes too: what is read, by whom, and for how long.
TRAINING = (
    "method", "losses", "student", "image_size", "epochs", "seen_samples", "max_steps", "accumulate",
)  # fmt: skip


class Verbs(click.Group):
    """A group whose failures are one sentence and a hint: exit 1, or 128 + the signal that was the cause.

    Usage errors are click's: exit 2.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in VERBS:
            module, _, verb = VERBS[name].partition(":")
            command = getattr(import_module(module), verb)
            return planning(command) if name == "plan" else command
        if name in COMMANDS:
            return COMMANDS[name]
        return None

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
        from densecli.pipeline.teachers import kind_of
        from densecli.shards.datasets import DATASETS
        from densecli.train.columns import default_teacher
        from densecli.train.config import TrainerConfig
        from densecli.train.methods import find_method
        from densecli.train.terms import parse_losses, term_and_kind

        asked = {name: settings.pop(name) for name in TRAINING}
        dataset, teachers = settings["dataset"], settings["teachers"]
        student = asked["student"] or DATASETS[dataset].student
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


def ablation_runner() -> "Runner":
    """What the words of an ablation's runs do, in this process."""
    from densecli.ablation.runs import Runner
    from densecli.ablation.spec import flags_of, parsed
    from densecli.commands.evaluation_commands import evaluate
    from densecli.commands.train_commands import train, train_config
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
    )


def live_teacher(store: "Store", *, weights: Mapping[str, str], device: str) -> "LiveTeacher":
    """What the teachers of a store's maps say now, for `preview`."""
    from densecli.evaluation.preview import find_record
    from densecli.pipeline.verify import VerifyConfig, live_target, regions_beside

    asked = VerifyConfig(store=store.root, weights=weights, device=device)

    def tell(column: "Column", key: str) -> Any:
        return live_target(store, column, find_record(store, [regions_beside(store, column)], key), asked)

    return tell


if __name__ == "__main__":
    main()
