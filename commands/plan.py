"""The command `plan`: what a build will cost, and after how many trainings it has paid for itself."""

from typing import Any

from densecli.commands.options import Options, command, only
from densecli.pipeline.config import BuildConfig, PlanConfig
from densecli.train.config import TrainConfig

TRAINING = only(
    TrainConfig,
    *("method", "losses", "student", "image_size", "epochs", "seen_samples", "max_steps", "accumulate"),
)
"""What a training reads and for how long."""


@command(BuildConfig, PlanConfig, TRAINING)
def plan(options: Options) -> None:
    """Estimate bytes, FLOPs and hours of a build, and after how many trainings it has paid for itself. Writes
    nothing.

    Takes the options of build-shards and those of train that say what it reads and for how long. With
    --method or --loss, teachers that it reads and nobody named are planned too. Needs some of the photos;
    needs weights only for --calibrate.

    \b
    densecli plan --teacher vitl14 --dataset coco --split train2017
    densecli plan --method declip --student eva02-b16 --dataset coco --epochs 6
    """
    from densecli.pipeline.plan import plan as estimate
    from densecli.pipeline.plan import report

    build = options.make(BuildConfig)
    teachers, training = _training(options, build)
    build = options.make(BuildConfig, teachers=(*build.teachers, *teachers))
    planned = estimate(options.make(PlanConfig, build=build, **training))
    options.say(report(planned), planned)


def _training(options: Options, build: BuildConfig) -> tuple[list[str], dict[str, Any]]:
    """Teachers that the training reads and nobody named, and what of it PlanConfig takes."""
    from densecli.pipeline.teachers import kind_of
    from densecli.shards.datasets import defaults_for
    from densecli.train.columns import default_teacher
    from densecli.train.methods import find_method
    from densecli.train.terms import term_and_kind

    student = options.get("student") or defaults_for(build.dataset).student
    # The batch is the training's: --batch-size means both.
    given = {name: value for name, value in options.given.items() if name not in ("store", "weights")}
    config = Options(given=given).make(TrainConfig, store="", run="", student=student)
    training: dict[str, Any] = {
        "student": student,
        "image_size": config.image_size,
        "epochs": config.epochs,
        "seen": config.seen_samples,
    }
    if config.max_steps:
        training["seen"] = config.max_steps * config.batch_size * config.accumulate
    if config.losses is None and "method" not in options.given:
        return [], training
    losses = config.losses or find_method(config.method).losses
    reads = frozenset(term_and_kind(loss)[1] for loss in losses)
    there = {{"features": "labels"}.get(kind := kind_of(name), kind) for name in build.teachers}
    teachers = [default_teacher(build.dataset, kind, student) for kind in sorted(reads - there)]
    return teachers, {**training, "reads": reads}
