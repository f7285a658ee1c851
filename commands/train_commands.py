"""The verbs that train."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from densecli.commands.flags import flags, given, newest_store, say, write_json

if TYPE_CHECKING:
    from densecli.train.distillation import TrainConfig

LOOP = (
    click.option("--epochs", type=click.IntRange(1)),
    click.option(
        "--seen-samples", type=click.IntRange(1), metavar="N", help="Length of the run, in place of --epochs."
    ),
    click.option(
        "--max-steps", type=click.IntRange(1), help="Stop after this many steps, whatever the epochs."
    ),
    click.option("--lr", type=click.FloatRange(0, min_open=True)),
    click.option(
        "--accumulate", type=click.IntRange(1), metavar="N", help="Batches of each process before a step."
    ),
    click.option(
        "--drop-last", is_flag=True, default=None, help="Leave out an epoch's last step where it is smaller."
    ),
    click.option("--precision", type=click.Choice(["auto", "fp32", "tf32", "bf16"])),
    click.option("--compile", is_flag=True, default=None, help="The student by torch.compile."),
    click.option(
        "--activation-checkpointing",
        is_flag=True,
        default=None,
        help="Less memory: activations are made again in the backward.",
    ),
    click.option("--checkpoint-every", type=click.IntRange(1), metavar="STEPS"),
    click.option("--keep-checkpoints", type=click.IntRange(1), metavar="N"),
    click.option(
        "--max-nonfinite-steps",
        type=click.IntRange(0),
        metavar="N",
        help="Skip this many whose loss or gradient is not finite.",
    ),
    click.option("--resume", type=click.Choice(["interrupted", "never", "overwrite"])),
    click.option("--dry-run", is_flag=True, help="Say what would be done, write nothing."),
    click.option("--workers", type=click.IntRange(0), metavar="N", help="Threads that decode ahead."),
    click.option("--cache", metavar="DIR", help="Local folder for the shards of a remote store."),
    click.option(
        "--cache-gb", type=click.FloatRange(0, min_open=True), metavar="GB", help="What it holds at most."
    ),
    flags("store", "run", "student", "weights", "batch-size", "seed", "device", "json"),
)


def loop_flags(verb: Callable) -> Callable:
    """The flags of every run, see `train.config.TrainerConfig`."""
    for flag in reversed(LOOP):
        verb = flag(verb)
    return verb


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
@click.option("--regions", metavar="PLAN", help="Only columns of this region plan.")
@click.option(
    "--views", type=click.IntRange(1), metavar="N", help="Train on the first N stored views of a photo [all]."
)
@click.option(
    "--refiner", metavar="RUN|FILE", help="Only a refined column of this run's Refiner, or of a file's."
)
@click.option(
    "--image-size", type=click.IntRange(16), metavar="PX", help="Side of the student's input [the canvas]."
)
@click.option(
    "--decode",
    type=click.Choice(["cpu", "gpu"]),
    help="Where JPEGs are decoded; a GPU's pixels are a little others.",
)
@click.option("--mode", metavar="NAME", help="How the student's last block is read out.")
@click.option("--blocks", type=click.IntRange(1), metavar="N", help="Train the last N blocks only [all].")
@click.option("--tau", type=click.FloatRange(0, min_open=True), help="Softmax temperature.")
@click.option("--theta", type=click.FloatRange(0, 1), help="Regions less sure than this are left out.")
@click.option("--decoupling", type=click.IntRange(1, 4), help="Row of the decoupling table (4: the paper's).")
@click.option(
    "--beta", type=click.FloatRange(0, 1), help="Weight of Stuff for Thing regions, in place of the row's."
)
@click.option(
    "--spatial-tau", type=click.FloatRange(0, min_open=True), help="Temperature of the spatial term."
)
@click.option(
    "--spatial-side", type=click.IntRange(1), metavar="N", help="It compares N x N points of a box."
)
@click.option("--alpha", type=click.FloatRange(0, 1), help="Share of the student in the exported average.")
@flags("categories", "text-embeddings")
@loop_flags
def train(json_file: str | None, **settings: Any) -> None:
    """Train a student from a store.

    \b
    densecli train --store stores/coco-512 --student eva02-b16
    torchrun --nproc-per-node 4 --no-python -- densecli train --store stores/coco-512 --student eva02-b16
    """
    from densecli.train.distillation import train as fit

    _say(fit(train_config(**settings)), json_file)


def train_config(
    *,
    weights: Sequence[tuple[str, str]],
    losses: Sequence[str],
    store: str | None,
    run: str | None,
    student: str | None,
    **settings: Any,
) -> "TrainConfig":
    """What the flags of `train` ask for. Raises DenseCLIError."""
    from densecli.models.checkpoints import weights_given
    from densecli.train.distillation import TrainConfig
    from densecli.train.terms import parse_losses

    store, student = _what(store, student)
    return TrainConfig(
        store=store,
        run=run or f"runs/{settings['method']}-{student}-{Path(store).name}",
        student=student,
        weights=weights_given(student, weights),
        losses=parse_losses(losses) if losses else None,
        **given(settings),
    )


@click.command("train-refiner")
@click.option(
    "--depth", type=click.IntRange(1), metavar="K", help="Clone the last K blocks [4 of 12, 6 of 24]."
)
@click.option("--tau", type=click.FloatRange(0, min_open=True), help="Temperature of the contrast.")
@loop_flags
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
    from densecli.models.checkpoints import weights_given
    from densecli.train.refiner import RefinerConfig
    from densecli.train.refiner import train_refiner as fit

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


@click.command()
@flags("run")
@click.option(
    "--checkpoint", metavar="FILE", help="In place of --run: a run's checkpoint, or any weights of --student."
)
@flags("student")
@click.option("--layout", metavar="NAME", required=True, help="Whose names the weights get.")
@click.option("--format", type=click.Choice(["safetensors", "pt"]), help="[what the layout's readers open]")
@click.option("--out", metavar="FILE", help="The file [RUN/export/LAYOUT.FORMAT].")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    help="Average a run's last checkpoint anew, in place of its export.",
)
@click.option(
    "--mode", metavar="NAME", help="The read-out that the new card names [that of the run, else value]."
)
@click.option("--dry-run", is_flag=True, help="Say what would be written.")
@flags("json")
def export(json_file: str | None, **settings: Any) -> None:
    """Write a student as F-ViT, OV-DQUO, CAT-Seg, SAN, OpenCLIP or timm read it, with a card beside it.

    \b
    densecli export --run runs/densevlm-eva02-b16-coco-512 --layout eva
    """
    from densecli.train.export import ExportConfig
    from densecli.train.export import export as write

    card = write(ExportConfig(**settings))
    done = "would be written" if settings["dry_run"] else "written"
    random = " (random weights)" if card["random_weights"] else ""
    say(
        f"{card['path']}: {card['bytes'] / 1e6:.1f} MB {done}, {card['student']}{random} to be read in mode "
        f"{card['mode']}.\n{card['load']}",
        json_file,
        card,
    )


def _what(store: str | None, student: str | None) -> tuple[str, str]:
    """The store and the student, those that are meant where they are not named."""
    from densecli.shards.datasets import defaults_for
    from densecli.shards.store import Store

    store = store or newest_store()
    return store, student or defaults_for(Store.open(store).dataset["name"]).student


def _say(result: Mapping[str, Any], json_file: str | None) -> None:
    if int(os.environ.get("RANK", 0)):
        return  # of the processes that torchrun started the first one speaks
    write_json(json_file, result)
    random = " (random weights)" if result["random_weights"] else ""
    if "planned" in result:
        step, total = result["step"], result["total_steps"]
        left = f"steps {step + 1} to {total}" if step < total else f"all {total} steps are done"
        click.echo(f"{result['run']}: planned, {left}{random}")
        return
    loss = "none" if result["loss"] is None else f"{result['loss']:.4f}"
    click.echo(
        f"step {result['step']}, loss {loss}{random}: "
        + (result["export"] or "stopped by SIGTERM; the same command goes on")
    )
