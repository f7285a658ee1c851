"""The command `train`: trains a student from a store."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click

from densecli.commands.command import command, only
from densecli.commands.options import Options
from densecli.commands.results import PlannedTraining, Result, Training
from densecli.core.errors import DenseCLIError
from densecli.core.plugins import plugins
from densecli.evaluation.config import ClassifyConfig, RegionsInTraining
from densecli.train.config import TrainConfig
from densecli.train.run_config import RESOLVED, with_current_values

if TYPE_CHECKING:
    from densecli.core.distributed import Distributed
    from densecli.models.categories import Categories
    from densecli.train.distillation import Measures
    from densecli.train.distillation_recipe import Distillation
    from densecli.train.watch import Measure

STORES = only(
    TrainConfig,
    "store",
    shape="list",
    by_position=True,
    help="Folder or address of the store; several are read as one. May be given several times.",
)


@command(
    STORES,
    TrainConfig,
    RegionsInTraining,
    resolved=RESOLVED,
    upgrade=with_current_values,
    results=(
        Result(fields=Training, more="The value of each loss term, and what it logs."),
        Result(fields=PlannedTraining, when="--dry-run"),
    ),
)
def train(options: Options) -> None:
    """Train a student from a store.

    \b
    densecli train stores/coco-512 --student eva02-b16
    densecli train --init runs/clipself-eva02-b16-coco-512
    densecli train --evaluate-every 500 --keep-best Masks-S
    densecli train --holdout 0.01 --evaluate-every 500 --keep-best holdout/agreement
    torchrun --nproc-per-node 4 --no-python -- densecli train --store stores/coco-512 --student eva02-b16
    """
    result = run_training(options)
    show_result(options, result, after_training(result) if result.get("export") else ())


def run_training(options: Options) -> dict[str, Any]:
    """Trains as the options say, and measures what they say. Returns what `Trainer.fit` does."""
    from densecli.train.distillation import no_more
    from densecli.train.distillation import train as fit

    config = train_config(options)
    regions = options.make(RegionsInTraining)
    wanted = regions.evaluate_data or (config.evaluate_every and not config.holdout)
    if not wanted and (regions.evaluate_split or regions.evaluate_categories):
        raise click.UsageError(
            "--evaluate-split and --evaluate-categories describe the photos of --evaluate-data."
        )
    return fit(config, _measures(config, regions) if wanted else no_more)


def _measures(config: TrainConfig, regions: RegionsInTraining) -> "Measures":
    """What makes the measurement of regions, where the student and its processes are known."""
    from densecli.commands.run_data import annotated_photos
    from densecli.evaluation.region_measure import RegionMeasure

    asked = {"data": regions.evaluate_data, "split": regions.evaluate_split}
    asked |= {"categories": regions.evaluate_categories}

    def data() -> dict[str, str]:
        given = {name: value for name, value in asked.items() if value}
        if found := annotated_photos(config.store, given, photos=config.evaluate_limit):
            return found
        raise DenseCLIError(
            f"Nothing says which photos to measure: the data set of {config.store} has no annotated ones.",
            hint="Give --evaluate-data a folder of them, or --holdout 0.01, which needs none.",
        )

    def make(recipe: "Distillation", processes: "Distributed") -> list["Measure"]:
        found = processes.on_rank_zero(data)
        canvas = recipe.resolved()["image_size"]
        measure = RegionMeasure(
            recipe.student,
            processes,
            data=found["data"],
            split=found["split"],
            categories=found["categories"],
            limit=config.evaluate_limit,
            config=ClassifyConfig(canvas=canvas, mode=recipe.mode),
        )
        return [measure]

    return make


def train_config(options: Options) -> TrainConfig:
    """The training that the options describe. Raises DenseCLIError."""
    values = trained(options, init=options.get("init"))
    method = options.get("method", TrainConfig.method)
    run = f"runs/{method}-{values['student']}-{Path(values['store']).name}"
    return options.make(TrainConfig, **{"run": run, **values})


def trained(options: Options, *, init: str | None = None) -> dict[str, Any]:
    """The store, the student and its weights: if the first two are not given, the newest store and the
    student of the run `init` to start from, else that of the store's data set."""
    from densecli.models.model_card import run_export
    from densecli.models.weights import weights_given
    from densecli.shards.datasets import defaults_for
    from densecli.shards.parted_store import open_store

    store, student = options.store, options.get("student")
    if student is None and init:
        student = run_export(init)[1]["student"]
    student = student or defaults_for(open_store(store).dataset["name"]).student
    named = {"run": options.given["run"]} if "run" in options.given else {}
    weights = weights_given(student, options.get("weights", ()))
    return {"store": store, "student": student, "weights": weights, **named}


def show_result(options: Options, result: Mapping[str, Any], next_commands: Sequence[str] = ()) -> None:
    """Prints how a training ended, in the first of its processes.

    Args:
        options: The options of the command.
        result: See `Trainer.fit`.
        next_commands: Command lines for what has been exported.
    """
    if int(os.environ.get("RANK", "0")):
        return
    random = " (random weights)" if result["random_weights"] else ""
    if "planned" in result:
        step, total = result["step"], result["total_steps"]
        left = f"steps {step + 1} to {total}" if step < total else f"all {total} steps are done"
        options.say(f"{result['run']}: planned, {left}{random}", result)
        return
    loss = "none" if result["loss"] is None else f"{result['loss']:.4f}"
    end = (
        result["export"]
        or f"stopped by {result['signal'].name} with a checkpoint; the same command continues"
    )
    lines = [f"step {result['step']}, loss {loss}{random}: {end}"]
    if result["export"]:
        from densecli.train.early_warnings import SHORT
        from densecli.train.run_folder import RunFolder

        rows = RunFolder(result["run"]).metrics.read_text().splitlines()
        changed = changes(result, [json.loads(row)["loss"] for row in rows])
        lines += changed
        if len(rows) >= SHORT:
            from densecli.train.training_page import write_training_page

            lines.append(f"Report: {write_training_page(result['run'], result, changed)}")
        lines += ["Next:", *(f"  {command}" for command in next_commands)] if next_commands else []
    options.say("\n".join(lines), result)


def changes(result: Mapping[str, Any], losses: Sequence[float | None]) -> list[str]:
    """What a training has changed, a sentence each.

    Args:
        result: See `Trainer.fit`.
        losses: The loss of each step; None where it was not finite.
    """
    found = [loss for loss in losses if loss is not None]
    part = max(1, len(found) // 10)
    lines = []
    if found[1:]:
        first, last = fmean(found[:part]), fmean(found[-part:])
        steps = "step" if part == 1 else f"{part} steps"
        lines.append(f"Loss: {first:.4f} in the first {steps}, {last:.4f} in the last.")
    if (moved := result.get("moved")) is not None:
        lines.append(f"The trained weights moved by {moved:.2%} of their norm.")
    lines += measured(result)
    return [*lines, *(f"Warning: {sentence}" for sentence in result["warnings"])]


def measured(result: Mapping[str, Any]) -> list[str]:
    """What was measured while a training went on: a sentence each, and where the best weights are.

    Args:
        result: See `Trainer.fit`.
    """
    if not (values := result.get("measured")):
        return []
    before, last, best = values["before"], values["last"], result["best"]
    lines = [
        f"{name}: {f'{before[name]:.4g} before, ' if name in before else ''}{value:.4g} at the end."
        for name, value in last.items()
    ]
    if best:
        name, step = best["metric"], best["step"]
        lines.append(f"The best {name}: {best['value']:.4g} after step {step}, exported to {best['export']}.")
    return lines


def after_training(result: Mapping[str, Any]) -> list[str]:
    """Commands for the student of a run: the best, if one was chosen.

    Args:
        result: See `Trainer.fit`.
    """
    from densecli.commands.run_data import categories_of, has_annotations, store_of

    best = result.get("best")
    run = str(Path(best["export"]).parent) if best and "export" in best else str(result["run"])
    store = store_of(result["run"])
    names = ", ".join(some_names(categories_of(store)))
    words = (
        ["evaluate", run] if has_annotations(store) else ["diagnose", "--run", run, "--data", "PHOTO"],
        ["predict", "PHOTO", "--run", run, "--names", names],
        ["export", run, "--layout", "open_clip"],
    )
    # The student may be a plug-in's, or what reads it out.
    plugged = [word for name in plugins() for word in ("--plugin", name)]
    return [shlex.join(["densecli", *each, *plugged]) for each in words]


def some_names(categories: "Categories") -> list[str]:
    """Up to three names of a category set, two things and a stuff where it has them."""
    things = categories.thing if categories.thing is not None else [True] * len(categories)
    # --names is a list with commas.
    usable = [pair for pair in zip(categories.names, things, strict=True) if "," not in pair[0]]
    thing, stuff = ([name for name, is_thing in usable if is_thing == kind] for kind in (True, False))
    return [*thing[: 3 - min(1, len(stuff))], *stuff][:3]
