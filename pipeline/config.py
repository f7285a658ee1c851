"""The settings of build-shards, and those that it shares with other commands."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import MAX_PIXELS
from densecli.core.settings import Settings, changed, setting
from densecli.shards.codecs import Rows
from densecli.shards.config import ALL_THINGS, CATEGORIES, DeviceSettings, DryRunSettings, TextSettings
from densecli.shards.datasets import DATASETS, Dataset
from densecli.shards.kinds import TAU
from densecli.shards.mask_plan import MaskPlan

WEIGHTS = (
    "Weights of a model: a file, hf-hub:ORG/REPO[/FILE][@REVISION], open_clip:TAG or random:SEED. May be "
    "given several times."
)

RANK, SELF_RANK = 64, 96
"""Default ranks of token factors: of a VFM or a Refiner, and of a CLIP's own tokens.

The loss `spatial` sharpens correlations, which `context` compares as they are. So with DINOv2-S on photos, a
rank of 64 changes the loss by a fraction of 1.2e-3, and a rank of 96 by less than 5e-4.
"""


@dataclass(frozen=True, kw_only=True)
class LabelSettings(TextSettings):
    """How labels are retrieved."""

    categories: str | None = setting(
        None,
        help=CATEGORIES,
        group="labels",
        metavar="SET|FILE|NAMES",
        default_text="the data set's; 316 for photos: COCO-Stuff and ADE20K together",
        path=True,
    )
    all_things: bool = setting(False, help="Takes all names of --categories for things.", group="labels")
    text_embeddings: str | None = changed(TextSettings, "text_embeddings", group="labels")
    templates: str | None = changed(TextSettings, "templates", group="labels")
    tau: float = setting(TAU, help="Temperature of the softmax over categories.", group="labels", above=0)

    def __post_init__(self) -> None:
        """Notes --all-things in the categories, which are recorded. Raises DenseCLIError."""
        super().__post_init__()
        if self.all_things and not self.categories:
            raise DenseCLIError("--all-things is about the names of --categories.", hint="Give both.")
        if self.all_things and not str(self.categories).startswith(ALL_THINGS):
            object.__setattr__(self, "categories", f"{ALL_THINGS}{self.categories}")


@dataclass(frozen=True, kw_only=True)
class ModelWeightsSettings(Settings):
    """The weights of several models."""

    weights: Mapping[str, str] = setting(
        default_factory=dict,
        help=WEIGHTS,
        group="teachers",
        metavar="NAME=PATH",
        default_text="weights/NAME.*, else the published ones",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class WebSettings(Settings):
    """Limits for photos from a list of addresses, which strangers may have written."""

    allow_private: bool = setting(
        False,
        help="Lets a list of addresses name servers of this machine and its network.",
        group="data",
    )
    allow_local: bool = setting(
        False, help="Lets a list of addresses name files of this machine.", group="data"
    )
    max_bytes: int = setting(
        64_000_000,
        help="Skips photos from a list of addresses that have more than N bytes, before or after unpacking.",
        group="data",
        min=1,
        metavar="N",
    )
    photo_timeout: float = setting(
        60.0,
        help="Seconds for a photo of a list of addresses, with redirects and further attempts.",
        group="data",
        above=0,
        metavar="S",
    )


@dataclass(frozen=True, kw_only=True)
class FailureSettings(Settings):
    """What may fail how often, and how long it may take."""

    max_attempts: int = setting(
        3,
        help="Sets a shard aside that has failed N times, and leaves out a node on which N workers in a row "
        "have failed; the rest is built.",
        group="run",
        min=1,
        metavar="N",
    )
    max_failed_shards: int = setting(
        10,
        help="Ends the run once more than N shards are set aside.",
        group="run",
        min=0,
        metavar="N",
    )
    slow_factor: float = setting(
        5.0,
        help="Gives a shard that takes F times the median to a second worker.",
        group="run",
        min=1,
        metavar="F",
    )
    stall_timeout: float = setting(
        600.0,
        help="Ends a worker, and tries its shards again, after S seconds without a sign of life: each photo, "
        "and each batch of a teacher, is one.",
        group="run",
        above=0,
        metavar="S",
    )


@dataclass(frozen=True, kw_only=True)
class BuildConfig(
    FailureSettings, WebSettings, ModelWeightsSettings, LabelSettings, DeviceSettings, DryRunSettings
):
    """The settings of build-shards."""

    dataset: str = setting(
        help="Data set, such as coco or folder; densecli list datasets describes them.",
        group="data",
        registry="datasets",
        metavar="NAME",
    )
    data: str | None = setting(
        None,
        help="Folder of the photos, or a pattern or list of them.",
        group="data",
        metavar="DIR",
        default_text="DATASET in $DENSECLI_DATA, else in data/",
        path=True,
    )
    split: str | None = setting(
        None,
        help="Split of the data set.",
        group="data",
        metavar="NAME",
        default_text="the data set's training split",
    )
    limit: int | None = setting(
        None, help="Uses only the first N photos.", group="data", min=1, metavar="N", default_text="all"
    )
    max_pixels: int = setting(
        MAX_PIXELS,
        help="Skips photos of more pixels; WebP and JPEG 2000 count double, as they take twice the memory.",
        group="data",
        min=1,
        metavar="N",
    )
    seed: int = setting(
        0,
        help="Seed of generated photos, of the choice of views and of a shuffled cut.",
        group="data",
        metavar="N",
    )
    relist: bool = setting(
        False,
        help="Lists photos in an object store again, instead of using the listing that was kept.",
        group="data",
    )
    store: str | None = setting(
        None,
        help="Folder or address of the store to write.",
        group="store",
        metavar="URL",
        default_text="stores/DATASET-CANVAS",
        path=True,
    )
    canvas: int | None = setting(
        None,
        help="Side of the square canvas that photos are fitted into.",
        group="store",
        min=16,
        metavar="PX",
        default_text=f"the data set's; {Dataset.canvas} for photos",
    )
    shard_size: int = setting(256, help="Photos in a shard.", group="store", min=1, metavar="N")
    cut: Literal["listed", "shuffled"] | None = setting(
        None,
        help="Photos of a shard: neighbours in the listing, or shuffled by --seed.",
        group="store",
        default_text="the store's; a new one of folder is shuffled, others are as listed",
    )
    tars_per_part: int | None = setting(
        None,
        help="Builds a store of parts, each of the photos of N tars, one after another.",
        group="store",
        min=1,
        metavar="N",
        default_text="the store's; a new one has no parts",
    )
    regions: str = setting(
        "grid-paper",
        help="Region plan: grid-paper, masks, mask-boxes, proposals, or another grid.",
        group="regions",
        metavar="PLAN",
    )
    proposals: str | None = setting(
        None,
        help="Boxes for --regions proposals: a json file in COCO's format.",
        group="regions",
        metavar="FILE",
        default_text="none",
        path=True,
    )
    masks: str | None = setting(
        None,
        help="Masks for --regions masks and mask-boxes: a json file in COCO's format.",
        group="regions",
        metavar="FILE",
        default_text="those of the data set",
        path=True,
    )
    max_masks: int = setting(
        MaskPlan.max_masks, help="Most masks of a photo.", group="regions", min=1, metavar="N"
    )
    min_area: float = setting(
        MaskPlan.min_area,
        help="Smallest mask, as a share of the canvas.",
        group="regions",
        min=0,
        max=1,
        default_text="8 x 8 pixels of 512 x 512",
    )
    min_iou: float = setting(
        MaskPlan.min_iou,
        help="Lowest predicted_iou of a mask, where masks have one.",
        group="regions",
        min=0,
        max=1,
    )
    min_stability: float = setting(
        MaskPlan.min_stability,
        help="Lowest stability_score of a mask, where masks have one.",
        group="regions",
        min=0,
        max=1,
    )
    store_boxes: bool = setting(
        False,
        help="Stores the boxes of grids too, for programs that read the tars themselves. "
        "Otherwise readers compute them from the photos.",
        group="regions",
    )
    teachers: tuple[str, ...] = setting(
        (),
        flag="teacher",
        help="Teacher: MODEL (labels), features-, crops-, self-, aggregated-, refiner- or refined-map-MODEL, "
        "or a VFM such as dinov2-vitb14. May be given several times.",
        group="teachers",
        metavar="NAME",
        default_text="none: photos and regions alone",
    )
    views: int = setting(
        4,
        help="Number of views of each photo whose boxes are cropped or refined.",
        group="targets",
        min=1,
        metavar="K",
    )
    side: int = setting(
        7, help="Stores N x N tokens for each refined region.", group="targets", min=1, metavar="N"
    )
    contexts: int = setting(
        32,
        help="Number of other photos around each photo, for aggregated- teachers.",
        group="targets",
        min=1,
        metavar="N",
    )
    codec: Literal["int8", "fp16", "fp32"] = setting(
        Rows.dtype, help="Number format of crop embeddings and token factors.", group="targets"
    )
    rank: int | None = setting(
        None,
        help="Rank of token factors.",
        group="targets",
        min=1,
        metavar="N",
        default_text=f"{RANK}; {SELF_RANK} for self- and features- teachers",
    )
    gram_rmse: float | None = setting(
        None,
        help="Chooses for each photo the lowest rank that keeps token cosines within this RMSE.",
        group="targets",
        above=0,
        metavar="RMSE",
        default_text="a fixed --rank",
    )
    resample: bool = setting(
        True,
        help="Resizes a P-VLM's canvas to a multiple of its patch; without, as in DenseVLM's released code, "
        "patches of 14 px cover 504 of 512.",
        group="targets",
    )
    teacher_precision: Literal["auto", "fp16", "bf16", "tf32", "fp32"] = setting(
        "auto",
        help="Precision of the teachers' arithmetic, part of their columns.",
        group="targets",
        default_text="that of the column in the store; of a new one fp16 on a GPU, fp32 on a CPU",
    )
    student_patch: int | None = setting(
        None,
        help="Patch size of the students whose token grid a VFM's map gets.",
        group="targets",
        min=1,
        metavar="PX",
        default_text=f"the data set's; {Dataset.student_patch} for photos",
    )
    batch_size: int = setting(
        16,
        help="Canvases in a batch; for crops, as many pixels.",
        group="speed",
        min=1,
        metavar="N",
    )
    workers: int | None = setting(
        None,
        help="Worker processes, each with its own teachers.",
        group="speed",
        min=1,
        metavar="N",
        default_text="as many as the GPUs have room for, one each; with --ray-address those of the whole "
        "cluster; 1 without GPUs",
    )
    gpus_per_worker: float | None = setting(
        None,
        help="GPUs for each worker; 0.5 lets two workers share one.",
        group="speed",
        above=0,
        metavar="F",
        default_text="all GPUs are shared evenly",
    )
    ray_address: str | None = setting(
        None,
        help="A Ray cluster: auto, HOST:PORT or ray://HOST:PORT.",
        group="speed",
        metavar="URL",
        default_text="starts a local Ray",
    )
    part: str | None = setting(
        None,
        help="Builds only the I-th of N equal parts, for schedulers that start one command a part.",
        group="run",
        metavar="I/N",
        default_text="all; builds of one store share its shards by themselves",
    )
    max_unreadable: int = setting(
        1000,
        help="Stops after this many unreadable photos in a row.",
        group="run",
        min=1,
        metavar="N",
    )

    @property
    def store_url(self) -> str:
        """`store`, or where a store of this data set and canvas is by default."""
        canvas = self.canvas or DATASETS[self.dataset].canvas
        return self.store or os.path.join("stores", f"{self.dataset}-{canvas}")
