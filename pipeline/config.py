"""What a build is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from densecli.shards.regions import MaskPlan


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """The settings of build-shards.

    data: where the photos are, else `dataset` in $DENSECLI_DATA or data/. seed: of the generated world, where
    that is the dataset, and of those views. store: a folder or a URL, else stores/<dataset>-<canvas>.
    canvas: pixels, else 512 (scenes: their own size). regions: a region plan; proposals: the file of that
    plan; min_iou, min_stability: of masks. teachers: names, see `teacher_config`. weights: {model:
    PATH or random:SEED}, else looked up.

    Of labels: categories, else COCO-Stuff and ADE's 316 (scenes: their own); templates, the prompts' name,
    where no text_embeddings are given; tau, the softmax temperature. Of crops and refined boxes: views, how
    many of a photo's; side, of the side * side tokens of a refined box. Of token factors: rank, else 64, of
    self and features 96 (features of scenes: 16), or in its place gram_rmse, the RMSE of cosines that each
    photo (or box) keeps with as low a rank as it allows; student_patch, of the students that a VFM's grid is
    for, else 16 (scenes: their own). codec: of crops and factors, int8, fp16 or fp32.

    batch_size: canvases in a batch, or crops of as many pixels. workers: processes, each with its own
    teachers. gpus_per_worker: a fraction where several share one, else what `gpus_of_worker` says.
    ray_address: of a cluster, else a Ray of its own on this machine. device: auto takes the GPU if there is
    one. max_attempts: of one shard, before the job stops.
    max_unreadable: photos in a row, counted over whole shards, before it stops. dry_run: say what is missing,
    write nothing.
    """

    dataset: str
    data: str | None = None
    split: str | None = None
    limit: int | None = None
    seed: int = 0
    store: str | None = None
    canvas: int | None = None
    shard_size: int = 256
    regions: str = "grid-paper"
    proposals: str | None = None
    min_iou: float = MaskPlan.min_iou
    min_stability: float = MaskPlan.min_stability
    teachers: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    categories: str | None = None
    text_embeddings: str | None = None
    templates: str | None = None
    tau: float = 0.01
    views: int = 4
    side: int = 7
    codec: str = "int8"
    rank: int | None = None
    gram_rmse: float | None = None
    student_patch: int | None = None
    batch_size: int = 16
    workers: int = 1
    gpus_per_worker: float | None = None
    ray_address: str | None = None
    device: str = "auto"
    max_attempts: int = 3
    max_unreadable: int = 1000
    dry_run: bool = False
