"""Flags of `evaluate` for what it measures besides regions. Nothing heavy is imported: --help reads this."""

from collections.abc import Callable
from typing import Any

import click

from densecli.commands.flags import given

DATASETS = (
    *("panoptic", "folder", "coco-stuff", "coco-object", "ade150", "context59", "context60"),
    *("voc20", "voc21", "cityscapes"),
)
DENSE = ("segmentation", "knn")
EVERY = ("segmentation", "zeroshot", "knn")
WINDOWS = ("segmentation",)


class Numbers(click.ParamType):
    """0,.5,1 to (0.0, 0.5, 1.0)."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers, as 0,0.5,1", param, ctx)


_PIXELS = click.IntRange(1)
# Flag -> the tasks that read it, and its option.
FLAGS: dict[str, tuple[tuple[str, ...], Callable]] = {
    "dataset": (
        EVERY,
        click.option("--dataset", type=click.Choice(DATASETS), help="How --data lies [panoptic]."),
    ),
    "alphas": (
        EVERY,
        click.option(
            "--alphas",
            type=Numbers(),
            help="With --run: its student averaged with what it was, 1 is trained.",
        ),
    ),
    "side": (
        WINDOWS,
        click.option("--side", type=_PIXELS, metavar="PX", help="Short side of the photos [448]."),
    ),
    "window": (
        WINDOWS,
        click.option("--window", type=_PIXELS, metavar="PX", help="The sliding window [336]."),
    ),
    "stride": (
        WINDOWS,
        click.option("--stride", type=_PIXELS, metavar="PX", help="By which it slides [112]."),
    ),
    "threshold": (
        WINDOWS,
        click.option(
            "--threshold", type=click.FloatRange(0, 1), help="Less likely pixels are background [0.1]."
        ),
    ),
    "k": (("knn",), click.option("--k", type=click.IntRange(1), help="Neighbours of a patch [20].")),
    "train_split": (
        ("knn",),
        click.option("--train-split", metavar="NAME", help="Whose patches are the neighbours [train2017]."),
    ),
    "train_photos": (
        ("knn",),
        click.option("--train-photos", type=click.IntRange(1), metavar="N", help="How many of those [100]."),
    ),
}


# What says of whom and on what; the others configure the measurement.
ABOUT = ("dataset", "alphas", "train_split", "train_photos")
CONFIGURE = tuple(name for name in FLAGS if name not in ABOUT)


def task_flags(verb: Callable) -> Callable:
    """--task, and the flags of FLAGS."""
    for _, option in reversed(FLAGS.values()):
        verb = option(verb)
    return click.option(
        "--task",
        type=click.Choice(("regions", *EVERY)),
        default="regions",
        show_default=True,
        help="What is measured.",
    )(verb)


def take_task_flags(task: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Those of ABOUT that were given, taken out of `settings`. A flag of another task is a usage error."""
    for name in given({name: settings[name] for name in FLAGS}):
        if task not in FLAGS[name][0]:
            raise click.UsageError(f"--{name.replace('_', '-')} is for --task {' or '.join(FLAGS[name][0])}.")
    own = given({name: settings.pop(name) for name in ABOUT})
    for name in CONFIGURE if task == "regions" else ():
        settings.pop(name)
    return own
