"""What the commands write with --json: the fields of each, their types and what they mean.

The reference pages show these tables, and the tests compare every result that a command writes with them.
Numbers that are not finite are null.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, TypedDict

Photos = Annotated[dict[str, int], "Number of photos by reason."]
Passed = Annotated[
    dict[str, dict[str, Any]],
    "What the listing passed over, by reason: its count, and the first names.",
]
Seconds = Annotated[dict[str, float], "Seconds of all workers by stage; total is the elapsed time."]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A form that the result of a command has.

    Attributes:
        fields: A TypedDict whose fields are annotated with their type and their meaning; or another type.
        when: The options that lead to this form; empty if there is no other.
        by: What the keys are if there is one such value for each of several; empty if there is one alone.
        more: What further fields are, which have names of their own; empty if there are none.
    """

    fields: Any
    when: str = ""
    by: str = ""
    more: str = ""


class BuiltColumn(TypedDict):
    """A column that a build asks for."""

    kind: Annotated[str, "regions or targets; images for the photos."]
    name: Annotated[str, "Name."]
    id: Annotated[str, "First digits of its key."]
    shards: Annotated[int, "Number of its shards."]
    missing: Annotated[int, "Shards that it lacked before."]
    computed: Annotated[bool, "Whether readers compute it, so that nothing is stored."]
    precision: Annotated[NotRequired[str], "Precision in which the teacher ran; of targets."]


class Build(TypedDict):
    """A build, or columns made of other columns."""

    status: Annotated[str, "built, up to date or planned."]
    store: Annotated[str, "Address of the store."]
    columns: Annotated[list[BuiltColumn], "The columns that were asked for."]
    shards: Annotated[NotRequired[int], "Shards built; where something was built, as the next six."]
    elsewhere: Annotated[NotRequired[int], "Shards that other builds of this store made meanwhile."]
    samples: Annotated[NotRequired[int], "Photos in the built shards."]
    skipped: NotRequired[Photos]
    skipped_first: Annotated[NotRequired[dict[str, list[str]]], "The first skipped photos by reason."]
    seconds: NotRequired[Seconds]
    images_per_second: Annotated[NotRequired[float], "Photos a second of elapsed time."]
    left_out: Annotated[NotRequired[list[str]], "Nodes that were left out, with the reason."]
    parts: Annotated[NotRequired[int], "Parts of a store of parts, whose numbers are added up here."]


class Training(TypedDict):
    """A training."""

    run: Annotated[str, "Folder of the run."]
    step: Annotated[int, "Last step."]
    epoch: Annotated[NotRequired[int], "Its epoch."]
    loss: Annotated[float | None, "Its loss."]
    lr: Annotated[NotRequired[float], "Its learning rate."]
    export: Annotated[str | None, "The student; null if the training was stopped."]
    signal: Annotated[int | None, "Number of the signal that stopped it; null if it reached its end."]
    moved: Annotated[
        NotRequired[float | None], "By how much the trained weights moved, as a share of their norm."
    ]
    random_weights: Annotated[bool, "Whether weights began as random ones."]
    seconds_to_first_step: Annotated[float | None, "From the start of the process."]
    warnings: Annotated[list[str], "What looked wrong, a sentence each."]
    measured: Annotated[
        NotRequired[dict[str, dict[str, Any]]],
        "What --evaluate-every measured: before the first step, and last.",
    ]
    best: Annotated[
        NotRequired[dict[str, Any] | None],
        "The best measurement: metric, value, step, what it depends on, and its export.",
    ]


class PlannedTraining(TypedDict):
    """A training that was not begun."""

    planned: Annotated[bool, "True."]
    run: Annotated[str, "Folder of the run."]
    step: Annotated[int, "Step of its last checkpoint, else 0."]
    total_steps: Annotated[int, "Steps in all."]
    random_weights: Annotated[bool, "Whether weights begin as random ones."]


class Regions(TypedDict):
    """Accuracies of regions, in percent."""

    boxes_top1: Annotated[float | None, "Boxes of things named right."]
    boxes_top5: Annotated[float | None, "Boxes whose name is among the five best."]
    masks_thing_top1: Annotated[float | None, "Masks of things named right."]
    masks_thing_top5: Annotated[float | None, "Masks of things whose name is among the five best."]
    masks_stuff_top1: Annotated[float | None, "Masks of stuff named right."]
    masks_stuff_top5: Annotated[float | None, "Masks of stuff whose name is among the five best."]
    stuff_as_thing: Annotated[float | None, "Masks of stuff that are called a thing."]
    things: Annotated[int, "Segments of things."]
    stuffs: Annotated[int, "Segments of stuff."]
    skipped: Annotated[int, "Segments left out: crowds, or of no category of the set."]
    absent: Annotated[int, "Annotated photos that are not there."]
    vanished: Annotated[int, "Segments too small to be seen on the canvas."]
    weights: Annotated[str, "Where the weights are from."]
    random_weights: Annotated[bool, "Whether weights began as random ones."]
    measured: Annotated[dict[str, Any] | None, "Data, photos, categories, prompts, canvas and mode."]
    classes: Annotated[list[dict[str, Any]], "The same figures for each class."]
    sizes: Annotated[list[dict[str, Any]], "The same figures by size of the region."]
    confusion: Annotated[
        dict[str, dict[str, int]], "Masks by true class and predicted class; an empty name for none."
    ]
