"""The command `train`: trains a student from a store."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecli.commands.command import command, only
from densecli.commands.options import Options
from densecli.train.config import TrainConfig
from densecli.train.run_config import RESOLVED, with_current_values

STORES = only(
    TrainConfig,
    "store",
    shape="list",
    by_position=True,
    help="Folder or address of the store; several are read as one. May be given several times.",
)


@command(STORES, TrainConfig, resolved=RESOLVED, upgrade=with_current_values)
def train(options: Options) -> None:
    """Train a student from a store.

    \b
    densecli train stores/coco-512 --student eva02-b16
    densecli train --init runs/clipself-eva02-b16-coco-512
    torchrun --nproc-per-node 4 --no-python -- densecli train --store stores/coco-512 --student eva02-b16
    """
    from densecli.train.distillation import train as fit

    show_result(options, fit(train_config(options)))


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


def show_result(options: Options, result: Mapping[str, Any]) -> None:
    """Prints how a training ended, in the first of its processes."""
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
    options.say(f"step {result['step']}, loss {loss}{random}: {end}", result)
