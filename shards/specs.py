"""Types of the JSON documents that describe a store and its columns. Their keys are what stands on disk.

A plug-in's teacher may put further keys into `TargetSpec`, and its codec into `CodecSpec`.
"""

from typing import Any, Literal, NotRequired, TypedDict

FULL_PRECISION = "fp32"
"""Precision of the teacher of a column whose spec names none."""


class DatasetIdentity(TypedDict):
    """`dataset` of store.json: which photos, in which order. Another listing is another data set.

    A source adds the options that decide its listing, under the names of build-shards' options.
    """

    name: str
    split: str
    digest: str
    """sha256 of the listing."""
    n: int
    """Number of photos."""
    seed: NotRequired[int]
    cut: NotRequired[str]
    """`shuffled` by `seed`; absent: in the order of the listing."""


class PhotosSpec(TypedDict):
    """`photos` of store.json: how photos are stored."""

    codec: str
    decode: int
    """A JPEG is decoded at the smallest of its scales that is at least this many times the resized photo."""
    quality: int
    resample: str


class DataSpec(TypedDict):
    """What ties a column to its store."""

    canvas: int
    store: str
    """sha256 of the canonical JSON of store.json."""


class StoreDocument(TypedDict):
    """store.json."""

    format: int
    dataset: DatasetIdentity
    canvas: int
    shards: list[int]
    """Number of samples planned for every shard."""
    photos: PhotosSpec


class TextSpec(TypedDict, total=False):
    """Where text embeddings come from: prompt templates, or the sha256 of a file."""

    templates: list[str]
    sha256: str


class CropSpec(TypedDict):
    """How a box becomes the picture that a teacher sees."""

    side: int
    context: float
    fit: str
    resample: str


class TargetSpec(TypedDict):
    """`target` of a target column: what the teacher is asked for."""

    name: str
    """The kind of target, see `densecli.shards.kinds`."""
    tau: NotRequired[float]
    categories: NotRequired[list[str]]
    text: NotRequired[TextSpec]
    views: NotRequired[int]
    """Number of views of each sample that are stored."""
    seed: NotRequired[int]
    """Seed of the choice of views, or of other photos."""
    contexts: NotRequired[int]
    """Number of other photos that each photo was seen in."""
    side: NotRequired[int]
    """Tokens along each side of a box: a box has side * side rows."""
    crop: NotRequired[CropSpec]
    student_patch: NotRequired[int]
    mode: NotRequired[str]
    """How a CLIP's last block is read out."""


class CodecSpec(TypedDict):
    """`codec` of a target column: the codec's name and options."""

    name: str
    dtype: NotRequired[str]
    things: NotRequired[list[bool]]
    k: NotRequired[int]
    rest: NotRequired[float]
    rank: NotRequired[int | None]
    rmse: NotRequired[float | None]
    method: NotRequired[str]
    """How factors are found; a full decomposition where there is none."""
    seed: NotRequired[int]


class Preprocessing(TypedDict):
    """What a teacher sees of a photo: channel means and deviations, and a description of the pixels."""

    mean: list[float]
    std: list[float]
    input: str


class NetworkSpec(TypedDict, total=False):
    """The network that made a column's targets, if one did."""

    architecture: str
    weights: str
    """sha256 of the weights, or random:SEED."""
    refiner: str
    """The same of a Refiner's own weights."""
    preprocessing: Preprocessing
    precision: str
    """Precision of its arithmetic, fp16, bf16 or tf32; fp32 where there is none."""


class TeacherSpec(NetworkSpec):
    """The part of a column's spec that comes from the teacher."""

    producer: str
    """The teacher's version."""
    target: TargetSpec
    codec: CodecSpec


class RelabelSpec(TeacherSpec):
    """The spec of a column made by relabel."""

    features: str
    """Key of the column of features or crops that it is made of."""
    regions: str
    """Key of the column of the boxes."""


class MixSpec(TypedDict):
    """The spec of a column made by mix."""

    producer: str
    mixed: dict[str, float]
    """Weights of the columns of labels that it is made of, by their keys."""
    rule: str
    regions: str
    target: TargetSpec
    codec: CodecSpec


class RegionSpec(TypedDict, total=False):
    """The spec of a column of regions: the plan's name and options."""

    plan: str
    pairs: list[list[int]]
    """Rows and columns of each grid; of masks, those of photos without any."""
    stored: bool
    """False where readers compute the boxes, and the column has no shards."""
    sha256: str
    areas: list[int]
    limit: int
    pool: Literal["mask", "box"]
    """How regions are pooled; over their boxes where there is none."""
    min_iou: float
    min_stability: float
    min_area: float
    max_masks: int
    view_size: int


class ColumnSpec(NetworkSpec, RegionSpec):
    """`spec` of column.json: all that the column's bytes depend on. Its sha256 is the column's key.

    Every column has the first three keys, a region column those of its plan, a target column the others.
    """

    kind: str
    """images, regions or targets."""
    name: str
    data: DataSpec
    producer: NotRequired[str]
    target: NotRequired[TargetSpec]
    codec: NotRequired[CodecSpec]
    features: NotRequired[str]
    """See `RelabelSpec`."""
    mixed: NotRequired[dict[str, float]]
    """See `MixSpec`."""
    rule: NotRequired[str]
    regions: NotRequired[str]
    """Key of the region column that the targets are about."""


class ColumnInfo(TypedDict, total=False):
    """`info` of column.json: facts for people that are not part of the key."""

    weights: str
    """Where the teacher's weights were found, or random:SEED."""
    refiner: str
    """Where a Refiner's own weights were found, or random:SEED."""
    random_weights: bool
    """Whether any of the weights are random: numbers that follow from them say nothing about accuracy."""
    categories: str
    """Name of the category set."""
    features: str
    """Full name of the column, of features or crops, that relabel made this one of."""
    mixed: str
    """Full names and weights of the columns that mix made this one of."""


class ColumnDocument(TypedDict):
    """column.json."""

    key: str
    spec: ColumnSpec
    info: ColumnInfo


# What the reader needs of the documents: plug-ins and earlier versions may write other values beside it.
class _Named(TypedDict):
    name: str


class StoreReadable(TypedDict):
    """What a reader of store.json needs."""

    format: int
    dataset: _Named
    canvas: int
    shards: list[int]
    photos: dict[str, Any]


class _ColumnSpec(TypedDict):
    kind: Literal["regions", "targets"]
    name: str
    data: DataSpec
    target: NotRequired[dict[str, Any]]
    codec: NotRequired[dict[str, Any]]
    regions: NotRequired[str | None]
    stored: NotRequired[bool]
    features: NotRequired[str]
    mixed: NotRequired[dict[str, float]]


class ColumnReadable(TypedDict):
    """What a reader of column.json needs."""

    key: str
    spec: _ColumnSpec
    info: dict[str, Any]
