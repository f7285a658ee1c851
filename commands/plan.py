"""The command `plan`: what a build will cost, and after how many trainings it has paid for itself."""

from typing import Annotated, Any, NotRequired, TypedDict

from densecli.commands.command import command, only
from densecli.commands.method_needs import METHOD, build_for, kinds_read, training
from densecli.commands.options import Options
from densecli.commands.results import Passed, Result
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.plan_config import PlanConfig
from densecli.train.config import TrainConfig

TRAINING = only(
    TrainConfig,
    *("losses", "student", "image_size", "epochs", "seen_samples", "max_steps", "accumulate"),
)
"""What a training reads, and how long it is."""


class PlannedColumn(TypedDict):
    """The size of a column to come."""

    kind: Annotated[str, "images, regions or targets."]
    name: Annotated[str, "Name."]
    bytes: Annotated[int, "Bytes; at least so many where most_bytes is given."]
    most_bytes: Annotated[NotRequired[int], "At most so many bytes."]


class Plan(TypedDict):
    """An estimate of a build and of trainings on it."""

    photos: Annotated[int, "Photos of the data set."]
    passed_over: Passed
    listed: Annotated[str | None, "Where the listing was kept from; null if it was made now."]
    proposals: Annotated[dict[str, int], "How the file of boxes fits the photos; empty without one."]
    sampled: Annotated[int, "Photos that were measured."]
    parts: Annotated[NotRequired[int], "Parts of a store of parts."]
    parts_listed: Annotated[NotRequired[int], "Of them, parts that were listed."]
    skipped: Annotated[float, "Share of photos that cannot be read."]
    bytes: Annotated[int, "Bytes of the store; at least so many where most_bytes is given."]
    most_bytes: Annotated[NotRequired[int], "At most so many bytes."]
    measured_bytes: Annotated[dict[str, float], "What was measured of teachers' columns, against the least."]
    uncertainty: Annotated[float, "Half of the relative width of the 95 % interval of the bytes."]
    columns: Annotated[list[PlannedColumn], "Each column."]
    index_bytes: Annotated[int, "Bytes of the listing."]
    cpu_hours: Annotated[float, "Hours of one core for photos and regions."]
    measured: Annotated[bool, "Whether speeds were measured here (--calibrate) or are those of --tflops."]
    tflops: Annotated[float, "Speed of a GPU in half precision, as given."]
    device: Annotated[str, "Device of the teachers."]
    teachers: Annotated[list[dict[str, Any]], "Each: precision, TFLOP and GPU hours, and those of an epoch."]
    student: Annotated[dict[str, Any], "Name, TFLOP and GPU hours of an epoch."]
    epochs: Annotated[float, "Epochs of a training."]
    break_even: Annotated[
        dict[str, float] | None,
        "Epochs, and trainings, after which the store has cost less than live teachers.",
    ]
    advice: Annotated[list[str], "Rules of thumb that the plan breaks."]


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
