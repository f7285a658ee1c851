"""The command `plan`: what a build will cost, and after how many trainings it has paid for itself."""

from typing import Any

from densecli.commands.command import command, only
from densecli.commands.method_needs import METHOD, build_for, kinds_read, training
from densecli.commands.options import Options
from densecli.commands.results import Plan, Result
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.plan_config import PlanConfig
from densecli.train.config import TrainConfig

TRAINING = only(
    TrainConfig,
    *("losses", "student", "image_size", "epochs", "seen_samples", "max_steps", "accumulate"),
)
"""What a training reads, and how long it is."""


@command(BuildConfig, PlanConfig, METHOD, TRAINING, results=(Result(fields=Plan),))
def plan(options: Options) -> None:
    """Estimate bytes, FLOPs and hours of a build, and after how many trainings it has paid for itself. Writes
    nothing.

    Takes the options of build-shards, and those of train that say what it reads and how long it is. --method
    and --loss add the teachers that they read; --method also sets the canvas and the regions of its paper.
    Needs some of the photos; needs weights only for --calibrate.

    \b
    densecli plan --teacher vitl14 --dataset coco --split train2017
    densecli plan --method declip --student eva02-b16 --dataset coco --epochs 6
    """
    from densecli.pipeline.plan import plan as estimate
    from densecli.pipeline.plan_report import report
    from densecli.pipeline.teachers import kind_of
    from densecli.train.decoupling_advice import advice_before_measuring

    build = build_for(options)
    of_training = _training(options, build)
    planned = estimate(options.make(PlanConfig, build=build, **of_training))
    read = of_training.get("reads", {"labels"})
    labelling = [name for name in build.teachers if kind_of(name) == "labels" and "labels" in read]
    rules = [advice_before_measuring(name) for name in labelling]
    options.say("\n".join([report(planned), *rules]), {**planned, "advice": rules})


def _training(options: Options, build: BuildConfig) -> dict[str, Any]:
    """The settings of the training that PlanConfig takes."""
    config = training(options, build)
    found: dict[str, Any] = {
        "student": config.student,
        "image_size": config.image_size,
        "epochs": config.epochs,
        "seen": config.seen_samples,
    }
    if config.max_steps:
        found["seen"] = config.max_steps * config.batch_size * config.accumulate
    if options.get("method") or options.get("losses"):
        found["reads"] = kinds_read(config)
    return found
