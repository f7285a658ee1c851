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


class Listed(Build):
    """A build from photos."""

    passed_over: Passed
    proposals: Annotated[dict[str, int], "How the file of boxes fits the photos; empty without one."]
    listed: Annotated[str | None, "Where the listing was kept from; null if it was made now."]
    parts: Annotated[NotRequired[int], "Parts of a store of parts."]
    unlisted: Annotated[NotRequired[int], "Parts that are not listed yet."]


class DescribedColumn(TypedDict):
    """A column of a store."""

    kind: Annotated[str, "images, regions or targets."]
    name: Annotated[str, "Name."]
    id: Annotated[str, "First digits of its key."]
    precision: Annotated[NotRequired[str], "Precision in which the teacher ran; of targets."]
    info: Annotated[dict[str, Any], "What the teacher says of itself: weights, their digest and more."]
    shards: Annotated[int, "Number of its shards."]
    missing: Annotated[int, "Shards that are not there."]
    manifest: Annotated[bool, "Whether it has a manifest."]
    computed: Annotated[bool, "Whether readers compute it, so that nothing is stored."]
    samples: Annotated[int, "Photos in its shards."]
    bytes: Annotated[int, "Bytes on disk."]
    seconds: Seconds
    gpu_seconds: Annotated[float, "Seconds of GPUs."]
    images_per_second: Annotated[float | None, "Photos a second of one worker."]
    error: Annotated[dict[str, float], "The codec's error, the largest or the mean over shards."]


class StoreFacts(TypedDict):
    """A store."""

    store: Annotated[str, "Address of the store."]
    dataset: Annotated[dict[str, Any], "Name, split and digest of the listing."]
    canvas: Annotated[int, "Side of the canvas in pixels."]
    shards: Annotated[int, "Number of shards."]
    planned: Annotated[int, "Photos that were listed."]
    skipped: Photos
    passed_over: Passed
    complete: Annotated[bool, "Whether no column lacks a shard."]
    bytes: Annotated[int, "Bytes on disk."]
    index_bytes: Annotated[int, "Of them, bytes of the listing of the data."]
    columns: Annotated[list[DescribedColumn], "Every column, photos first."]


class StoresFacts(TypedDict):
    """Several stores, or a store of parts."""

    store: Annotated[str, "Address."]
    parts: Annotated[list[StoreFacts], "Each of them."]


class Finding(TypedDict):
    """What lint found."""

    url: Annotated[str, "File or folder."]
    trouble: Annotated[str, "What is wrong, a sentence."]
    remedy: Annotated[str, "What helps, a sentence."]
    leftover: Annotated[bool, "Whether a killed writer left it, so that nothing of the store is wrong."]
    advice: Annotated[bool, "Whether nothing is wrong, but readers would be faster without it."]


class Checked(TypedDict):
    """What was read of a store."""

    store: Annotated[str, "Address of the store."]
    shards: Annotated[int, "Shards read."]
    of: Annotated[int, "Shards of all columns."]
    findings: Annotated[list[Finding], "What is wrong, or was left behind."]


class Rubbish(TypedDict):
    """A file or column that nothing needs."""

    url: Annotated[str, "File or folder."]
    bytes: Annotated[int, "Its bytes."]
    why: Annotated[str, "Why it is not needed."]
    column: Annotated[bool, "Whether it is a whole column."]


class Collected(TypedDict):
    """What no run needs."""

    store: Annotated[str, "Address of the store."]
    deleted: Annotated[bool, "Whether it was deleted."]
    items: Annotated[list[Rubbish], "Each file and column."]


class VerifiedColumn(TypedDict):
    """A column compared with its teacher."""

    name: Annotated[str, "Name."]
    id: Annotated[str, "First digits of its key."]
    samples: Annotated[int, "Photos compared."]
    random_weights: Annotated[bool, "Whether the teacher's weights are random."]
    figures: Annotated[
        dict[str, dict[str, float | bool]],
        "Each error: live now, recorded in the receipt, and whether it holds.",
    ]
    precision: Annotated[str, "Precision in which the teacher ran."]
    against_full_precision: Annotated[dict[str, float], "Largest errors from the teacher in fp32."]


class Verified(TypedDict):
    """What is stored, compared with the teachers."""

    store: Annotated[str, "Address of the store."]
    verified: Annotated[bool, "Whether every error is as recorded."]
    tolerance: Annotated[float, "By how much an error may be larger."]
    columns: Annotated[list[VerifiedColumn], "Each column."]


class Compared(TypedDict):
    """The labels of two P-VLMs."""

    store: Annotated[str, "Address of the store."]
    photos: Annotated[int, "Photos compared."]
    regions: Annotated[int, "Regions compared."]
    agreement: Annotated[float | None, "Share of regions with the same category."]
    thing_stuff_agreement: Annotated[float | None, "Share on which they agree whether it is a thing."]
    mean_total_variation: Annotated[float | None, "Mean distance of the probabilities."]
    columns: Annotated[list[dict[str, Any]], "Both: confidence, share of things, seconds and bytes a photo."]
    by_confidence: Annotated[list[dict[str, Any]], "Agreement by the confidence of the first."]
    classes: Annotated[list[dict[str, Any]], "Each category: regions, agreement, what the other calls it."]


class Shared(TypedDict):
    """Columns to share."""

    shared: Annotated[str, "Address of the folder."]
    version: Annotated[int, "Version of the folder's format."]
    columns: Annotated[list[str], "NAME-ID of each."]
    samples: Annotated[int, "Photos."]
    bytes: Annotated[int, "Bytes."]
    licence: Annotated[str | None, "The licence that was stated."]
    paths_removed: Annotated[int, "Paths of this machine that are left out."]


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


class Exported(TypedDict):
    """An exported student: its model card, and where it is."""

    path: Annotated[str, "The file."]
    bytes: Annotated[int, "Its bytes."]
    tensors: Annotated[int, "Its tensors."]
    layout: Annotated[str, "Its format."]
    load: Annotated[str, "Python code that loads it."]
    student: Annotated[str, "Architecture."]
    mode: Annotated[str, "How the last block must be read out."]
    image_size: Annotated[int, "Side of the canvas in pixels."]
    random_weights: Annotated[bool, "Whether weights began as random ones."]
    sha256: Annotated[str, "Digest of the file."]


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


class Coupling(TypedDict):
    """Token coupling; lower is better."""

    coupling_ratio_mean: Annotated[float | None, "Mean of R-SC's coupling ratio (eq. 15)."]
    coupling_ratio_median: Annotated[float | None, "Its median."]
    cross_segment_similarity: Annotated[float | None, "Cosine of tokens of different segments."]
    random_weights: Annotated[bool, "Whether weights began as random ones."]
    measured: Annotated[dict[str, Any], "Data, photos, categories, canvas and mode."]


class TaskFigures(TypedDict):
    """The figures of another task."""

    measured: Annotated[dict[str, Any], "Data, photos, categories, prompts, canvas and mode."]


class PhotoPrediction(TypedDict):
    """What was seen in a photo."""

    photo: Annotated[str, "Its path."]
    width: Annotated[int, "Width in pixels."]
    height: Annotated[int, "Height in pixels."]
    shares: Annotated[dict[str, float], "Share of the pixels that have each name."]
    regions: Annotated[list[dict[str, Any]], "Each box with its name, probability, cosine and share."]
    pictures: Annotated[dict[str, str], "The files drawn, by kind."]


class Predicted(TypedDict):
    """What was seen in photos."""

    model: Annotated[str, "Name of the model."]
    weights: Annotated[str, "Where its weights are from."]
    random_weights: Annotated[bool, "Whether they began as random ones."]
    canvas: Annotated[int, "Side of the canvas in pixels."]
    mode: Annotated[str, "How the last block was read out."]
    names: Annotated[list[str], "The names."]
    boxes: Annotated[str, "Where the boxes are from."]
    scale: Annotated[float, "Factor of the cosines in the softmax."]
    threshold: Annotated[float, "Probability below which a pixel has no name."]
    photos: Annotated[list[PhotoPrediction], "Each photo."]
    left_out: Annotated[dict[str, str], "Photos that could not be read, with the reason."]


class Diagnosed(TypedDict):
    """What was drawn and measured of a model."""

    page: Annotated[str, "The page."]
    photos: Annotated[list[str], "The drawn photos."]
    measured_photos: Annotated[int, "Photos that the figures are of."]
    categories: Annotated[str, "Category set."]
    canvas: Annotated[int, "Side of the canvas in pixels."]
    mode: Annotated[str, "How the last block was read out."]
    notes: Annotated[list[str], "What is left out, and why."]
    models: Annotated[
        dict[str, dict[str, Any]],
        "Each model: weights, coupling ratios, proxy scores, and regions as of evaluate.",
    ]


class Preview(TypedDict):
    """A picture of what is stored."""

    picture: Annotated[str, "The file."]
    columns: Annotated[list[str], "NAME-ID of each column that is drawn."]


class AblationRun(TypedDict):
    """A run of the grid, or a model that was measured without one."""

    name: Annotated[str, "Folder of the run, or the model."]
    settings: Annotated[dict[str, Any], "The grid's settings; empty for a model."]
    figures: Annotated[dict[str, float], "Figures by heading."]
    random_weights: Annotated[bool, "Whether weights began as random ones."]
    measured: Annotated[str, "Data, photos and categories of the figures."]
    error: Annotated[str, "Why there are no figures; empty otherwise."]


class Grid(TypedDict):
    """A grid of runs."""

    spec: Annotated[str, "The file of the grid."]
    runs: Annotated[list[AblationRun], "Each run."]
    teacher_costs: Annotated[
        list[dict[str, Any]], "Each column: seconds stored, seconds live for a photo, photos seen."
    ]
    page: Annotated[str, "The page of tables and charts."]


class Ablation(Grid):
    """A grid of runs, compared."""

    verdicts: Annotated[list[dict[str, Any]], "What adding each factor gives, with a sentence."]


class Scaling(Grid):
    """A grid of runs over growing shares of the photos."""

    same: Annotated[str, "What trainings on all shares have alike: steps or epochs."]
    photos: Annotated[list[dict[str, Any]], "Each share and seed, with its number of photos."]
    curves: Annotated[list[dict[str, Any]], "A curve of each figure over the photos."]


class Commands(TypedDict):
    """Commands that would be run."""

    commands: Annotated[list[str], "A command line each."]


class Category(TypedDict):
    """A name."""

    name: Annotated[str, "The name."]
    thing: Annotated[bool, "Whether it is a thing."]
    count: Annotated[int, "How often it was found."]
    why: Annotated[str, "Why it is taken for a thing or for stuff."]


class CategorySet(TypedDict):
    """A category set."""

    categories: Annotated[list[Category], "The most frequent first."]
    unsure: Annotated[list[str], "Names of which the rules are not sure."]
    unknown: Annotated[dict[str, int], "Frequent words of the captions that are no names here."]


class Names(TypedDict):
    """The names of one kind."""

    kind: Annotated[str, "The kind."]
    names: Annotated[list[dict[str, Any]], "Each: name, help, needs, missing; of models also the weights."]


class CheckedPart(TypedDict):
    """One thing that was looked at."""

    name: Annotated[str, "What it is."]
    status: Annotated[str, "ok, note or problem."]
    found: Annotated[str, "What was found."]
    hint: Annotated[str, "What helps; empty if nothing is wrong."]


class Examined(TypedDict):
    """A machine."""

    problems: Annotated[int, "Number of problems."]
    notes: Annotated[int, "Number of notes."]
    checks: Annotated[list[CheckedPart], "Each check."]
