"""The verbs that train."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from shards.flags import flags, given, newest_store, write_json


@click.command()
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
    from models.checkpoints import weights_given
    from train.methods import parse_losses
    from train.trainer import TrainConfig
    from train.trainer import train as fit

    store, student = _what(store, student)
    result = fit(
        TrainConfig(
            store=store,
            run=run or f"runs/{settings['method']}-{student}-{Path(store).name}",
            student=student,
            weights=weights_given(student, weights),
            losses=parse_losses(losses) if losses else None,
            **given(settings),
        )
    )
    _say(result, json_file)


@click.command("train-refiner")
@click.option("--tau", type=click.FloatRange(0, min_open=True), help="Temperature of the contrast.")
@click.option("--epochs", type=click.IntRange(1))
@click.option("--max-steps", type=click.IntRange(1), help="Stop after this many steps, whatever the epochs.")
@click.option("--lr", type=click.FloatRange(0, min_open=True))
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]))
@click.option("--resume", type=click.Choice(["interrupted", "never", "overwrite"]))
@flags("store", "run", "student", "weights", "batch-size", "seed", "device", "json")
def train_refiner(
    weights: Sequence[tuple[str, str]],
    store: str | None,
    run: str | None,
    student: str | None,
    json_file: str | None,
    **settings: Any,
) -> None:
    """Train the Refiner of a CLIP on a store's photos, for the teacher refiner-MODEL of the r-sc-* methods.

    \b
    densecli train-refiner --store stores/coco-512 --student eva02-b16
    """
    from models.checkpoints import weights_given
    from train.refiner import RefinerConfig
    from train.refiner import train_refiner as fit

    store, student = _what(store, student)
    result = fit(
        RefinerConfig(
            store=store,
            run=run or f"runs/refiner-{student}-{Path(store).name}",
            student=student,
            weights=weights_given(student, weights),
            **given(settings),
        )
    )
    _say(result, json_file)


def _what(store: str | None, student: str | None) -> tuple[str, str]:
    """The store and the student, those that are meant where they are not named."""
    from shards.store import Store

    store = store or newest_store()
    return store, student or ("scenes-s" if Store.open(store).dataset["name"] == "scenes" else "eva02-b16")


def _say(result: Mapping[str, Any], json_file: str | None) -> None:
    write_json(json_file, result)
    random = " (random weights)" if result["random_weights"] else ""
    click.echo(f"step {result['step']}, loss {result['loss']:.4f}{random}: {result['export']}")
