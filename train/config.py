"""The settings of the commands that train and export, and what of a run may change when it is resumed."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from densecli.core.errors import DenseCLIError
from densecli.core.settings import Settings, changed, setting
from densecli.shards.config import DeviceSettings, DryRunSettings, StoreSettings
from densecli.shards.kinds import TAU
from densecli.train.methods import Preset, find_method

Resume = Literal["interrupted", "never", "overwrite"]
Reduction = Literal["regions", "groups"]
DECOUPLING_ROWS: Mapping[str, str] = {"1": "none", "2": "full", "3": "stuff-only", "4": "densevlm"}
"""Names of the decoupling variants by their row of DenseVLM's table 2."""

WARMUP_STEPS = 1000
"""Of all three papers."""

# Settings of a run that may change when it is resumed: none of them moves a number on the same device but by
# the order of a sum. A step's samples may be shared out otherwise, `samples_per_step` of them they stay.
FREE = frozenset(
    {
        "store",
        "run",
        "weights",
        "resume",
        "device",
        "workers",
        "cache",
        "cache_gb",
        "ranks",
        "batch_size",
        "accumulate",
        "activation_checkpointing",
        "max_nonfinite_steps",
        "checkpoint_every",
        "keep_checkpoints",
        "dry_run",
        "loggers",
        "picture_every",
        "preset",
    }
)

RESOLVED = frozenset(
    {
        "ranks",
        "samples_per_step",
        "total_steps",
        "canvas",
        "columns",
        "initial_weights",
        "random_weights",
        "preset",
        "refiner_version",
    }
)
"""Keys of a run's config.json that are no settings but follow from them, the store and the machine."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig(Settings):
    """How batches are read from a store."""

    batch_size: int = setting(
        help="Samples in a batch of each process.", group="optimisation", min=1, metavar="N"
    )
    seed: int = setting(
        0, help="Seed of the order of samples, of their views and of new weights.", group="run", metavar="N"
    )
    drop_last: bool = setting(
        False, help="Leaves out the last step of an epoch where it has fewer samples.", group="optimisation"
    )
    workers: int = setting(
        2,
        help="Threads that decode ahead of the training step; with 0 the step decodes itself.",
        group="speed",
        min=0,
        metavar="N",
    )
    cache: str | None = setting(
        None,
        help="Local folder that keeps the shards of a remote store; processes may share it.",
        group="speed",
        metavar="DIR",
        default_text="every epoch fetches them again",
        path=True,
    )
    cache_gb: float = setting(
        100.0, help="Largest size of that folder in GB (1e9 bytes).", group="speed", above=0, metavar="GB"
    )


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(StoreSettings, LoaderConfig, DeviceSettings, DryRunSettings):
    """The settings that every training has."""

    run: str = setting(
        help="Folder of the run.",
        group="run",
        metavar="DIR",
        default_text="runs/, named after what is trained on what",
        path=True,
    )
    student: str = setting(
        "eva02-b16",
        help="Architecture that is trained.",
        group="model",
        metavar="NAME",
        default_text="the data set's; eva02-b16 for photos",
    )
    weights: str | None = setting(
        None,
        help="Initial weights: NAME=PATH or PATH; random:SEED for random ones.",
        group="model",
        metavar="NAME=PATH",
        default_text="looked up by name, weights/NAME.*",
        path=True,
        named=True,
    )
    batch_size: int = changed(LoaderConfig, "batch_size", default=48)
    accumulate: int = setting(
        1, help="Batches of each process before a step.", group="optimisation", min=1, metavar="N"
    )
    epochs: int = setting(6, help="Length of the training.", group="optimisation", min=1, metavar="N")
    seen_samples: int | None = setting(
        None,
        help="Length of the training in samples, rounded up to whole steps.",
        group="optimisation",
        min=1,
        metavar="N",
        default_text="as --epochs says",
    )
    max_steps: int | None = setting(
        None,
        help="Length of the training in steps, in place of both.",
        group="optimisation",
        min=1,
        metavar="N",
        default_text="as --epochs or --seen-samples says",
    )
    lr: float = setting(1e-5, help="Peak learning rate.", group="optimisation", above=0)
    weight_decay: float = setting(0.1, help="Weight decay of AdamW.", group="optimisation", min=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.98), help="Betas of AdamW.", group="optimisation", min=0, max=1, metavar="B1 B2"
    )
    warmup_steps: int | None = setting(
        None,
        help="Steps in which the learning rate rises to its peak.",
        group="optimisation",
        min=0,
        metavar="N",
        default_text="1000; a tenth of a training of no more steps",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = setting(
        "auto", help="Precision; auto is bf16 on a GPU, else fp32.", group="speed"
    )
    compile: bool = setting(False, help="Compiles the network with torch.compile.", group="speed")
    activation_checkpointing: bool = setting(
        False,
        help="Recomputes activations in the backward pass: less memory, more time.",
        group="speed",
    )
    max_nonfinite_steps: int = setting(
        0,
        help="Skips up to this many steps of the run whose loss or gradient is not finite.",
        group="run",
        min=0,
        metavar="N",
    )
    checkpoint_every: int = setting(
        500, help="Steps between checkpoints.", group="run", min=1, metavar="STEPS"
    )
    keep_checkpoints: int = setting(2, help="Checkpoints to keep.", group="run", min=1, metavar="N")
    resume: Resume = setting(
        "interrupted",
        help="What to do with a run that is there: continue it, refuse, or replace it.",
        group="run",
    )
    schedule: str = setting(
        "cosine",
        help="Learning-rate schedule; densecli list schedules describes them.",
        group="optimisation",
        metavar="NAME",
        registry="schedules",
    )
    loggers: tuple[str, ...] = setting(
        ("tensorboard",),
        flag="logger",
        help="Logger beside metrics.jsonl; densecli list loggers describes them. May be given several times.",
        group="run",
        metavar="NAME",
        registry="loggers",
    )
    picture_every: int | None = setting(
        None,
        help="Steps between pictures of a few photos in the log.",
        group="run",
        min=1,
        metavar="STEPS",
        default_text="one with every checkpoint",
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainerConfig):
    """The settings of train.

    A setting that is not given has the value that the preset of `method` gives it, else the field's default.
    """

    method: str = setting(
        "densevlm",
        help="Preset of losses and settings; densecli list methods describes them.",
        group="method",
        metavar="NAME",
        registry="methods",
    )
    batch_size: int = changed(
        TrainerConfig, "batch_size", default_text="the method's, such as 48 for densevlm"
    )
    lr: float = changed(TrainerConfig, "lr", default_text="the method's, such as 1e-5 for densevlm")
    betas: tuple[float, float] = changed(TrainerConfig, "betas", default_text="the method's, else 0.9 0.98")
    losses: Mapping[str, float] | None = setting(
        None,
        flag="loss",
        help="Loss term, the kind of target it learns from, and its weight. May be given several times.",
        group="method",
        above=0,
        metavar="TERM[:KIND]=W",
        default_text="the method's",
    )
    teachers: tuple[str, ...] = setting(
        (),
        flag="teacher",
        help="Target column, NAME or NAME-ID, where the store has several of its kind. May be given several "
        "times.",
        group="data",
        metavar="NAME",
        default_text="the only one, or that of the student's own teacher",
    )
    regions: str | None = setting(
        None,
        help="Reads only columns of this region plan.",
        group="data",
        metavar="PLAN",
        default_text="that of the target columns",
    )
    categories: str | None = setting(
        None,
        help="Reads only labels of this category set, or json or csv file of one; densecli list categories "
        "describes the sets.",
        group="data",
        metavar="SET|FILE",
        default_text="those of the labels",
        path=True,
    )
    views: int | None = setting(
        None,
        help="Trains on the first N stored views of each photo.",
        group="data",
        min=1,
        metavar="N",
        default_text="all of them",
    )
    refiner: str | None = setting(
        None,
        help="Reads only a refined column of the Refiner of this run or file.",
        group="data",
        metavar="RUN|FILE",
        default_text="any",
        path=True,
    )
    blocks: int | None = setting(
        None,
        help="Trains only the last N blocks.",
        group="model",
        min=1,
        metavar="N",
        default_text="all of them",
    )
    image_size: int | None = setting(
        None,
        help="Side of the student's input.",
        group="model",
        min=16,
        metavar="PX",
        default_text="the store's canvas",
    )
    decode: Literal["cpu", "gpu"] = setting(
        "cpu",
        help="Where JPEGs are decoded; a GPU's pixels differ slightly from those the teachers saw.",
        group="speed",
    )
    text_embeddings: str | None = setting(
        None,
        help="A .npy file with the student's text embedding of each category.",
        group="model",
        metavar="FILE",
        default_text="made by the student's text tower",
        path=True,
    )
    mode: str = setting(
        "value",
        help="How the student's last block is read out.",
        group="model",
        metavar="NAME",
        default_text="the method's, else value",
    )
    tau: float = setting(TAU, help="Softmax temperature of the categories.", group="method", above=0)
    theta: float = setting(
        0.3, help="Leaves out regions whose best category is less probable.", group="method", min=0, max=1
    )
    decoupling: str = setting(
        "densevlm",
        help="Categories that regions are told apart from, by name or row of DenseVLM's table 2: none, all; "
        "full, those of the region's own kind; stuff-only, stuff regions from stuff, things from all; "
        "densevlm, thing regions from things, stuff from all.",
        group="method",
        choices=(*DECOUPLING_ROWS.values(), *DECOUPLING_ROWS),
    )
    beta: float | None = setting(
        None,
        help="Weight of the stuff categories for thing regions.",
        group="method",
        min=0,
        max=1,
        default_text="as --decoupling says",
    )
    reduction: Reduction = setting(
        "regions",
        help="Averages the losses over all regions, or over things and stuff by themselves.",
        group="method",
    )
    spatial_tau: float = setting(0.2, help="Temperature of the spatial term.", group="method", above=0)
    spatial_side: int = setting(
        7,
        help="The spatial term compares N x N points of each box.",
        group="method",
        min=1,
        metavar="N",
    )
    alpha: float = setting(
        0.9,
        help="Share of the trained weights in the exported average with the initial ones.",
        group="model",
        min=0,
        max=1,
        default_text="the method's, such as 0.9 for densevlm",
    )

    loss_options: Mapping[str, str] = setting(
        default_factory=dict,
        flag="loss-option",
        help="Option of a loss term's own. May be given several times.",
        group="method",
        metavar="TERM.NAME=VALUE",
        default_text="the term's defaults",
    )

    def __post_init__(self) -> None:
        """Also replaces the number of a decoupling variant by its name."""
        super().__post_init__()
        object.__setattr__(self, "decoupling", DECOUPLING_ROWS.get(self.decoupling, self.decoupling))

    def preset(self) -> Mapping[str, Any]:
        """The method's settings."""
        return self.method_preset.settings

    @property
    def method_preset(self) -> Preset:
        """What the method sets for this student. Raises DenseCLIError for an unknown method."""
        return find_method(self.method).for_student(self.student)


@dataclass(frozen=True, kw_only=True)
class RefinerConfig(TrainerConfig):
    """The settings of train-refiner; `student` is the Refiner's network."""

    student: str = changed(TrainerConfig, "student", help="CLIP or VFM whose Refiner is trained.")
    batch_size: int = changed(TrainerConfig, "batch_size", default=16)
    epochs: int = changed(TrainerConfig, "epochs", default=4)
    lr: float = changed(TrainerConfig, "lr", default=1e-4)
    depth: int | None = setting(
        None,
        help="Clones the last K blocks of the network.",
        group="method",
        min=1,
        metavar="K",
        default_text="4 of 12, 6 of 24",
    )
    init: str = setting(
        "own",
        help="What the blocks begin as: own, the network's last blocks; random; exogenous, random ones after "
        "all blocks of the network; or the last blocks of another model, NAME or NAME=WEIGHTS.",
        group="method",
        metavar="NAME",
    )
    fc_inter: bool = setting(True, help="Mixes in the tokens of two earlier layers.", group="method")
    fc_cls: bool = setting(
        True, help="Makes a region's [CLS] by an MLP; without, it is the mean of its tokens.", group="method"
    )
    direction: Literal["global-to-local", "local-to-global"] = setting(
        "global-to-local",
        help="A region in the whole photo learns the tokens of its crop, or a crop those of its region.",
        group="method",
    )
    align: Literal["infonce", "cosine"] = setting(
        "infonce", help="How tokens are compared with those of the crop.", group="method"
    )
    tau: float = setting(0.2, help="Temperature of InfoNCE between tokens.", group="method", above=0)
    crops: int = setting(4, help="Crops of each photo.", group="method", min=1, metavar="N")
    scale: tuple[float, float] = setting(
        (0.3, 0.7),
        help="Smallest and largest area of a crop, as a share of the photo's.",
        group="method",
        above=0,
        max=1,
        metavar="LOW HIGH",
    )
    tokens: int | None = setting(
        None,
        help="A crop has N x N tokens.",
        group="method",
        min=1,
        metavar="N",
        default_text="as many as a picture of the network's own size, 14 for a ViT-B/16",
    )

    def __post_init__(self) -> None:
        """Also refuses a scale that ends before it begins."""
        super().__post_init__()
        if self.scale[0] > self.scale[1]:
            raise DenseCLIError(
                f"scale goes from {self.scale[0]:g} to {self.scale[1]:g}.", hint="Give --scale LOW HIGH."
            )


@dataclass(frozen=True, kw_only=True)
class ExportConfig(DryRunSettings):
    """The settings of export."""

    layout: str = setting(
        help="Checkpoint layout; densecli list exports describes them.",
        group="export",
        metavar="NAME",
        registry="exports",
    )
    run: str | None = setting(
        None,
        help="Run whose student is exported.",
        group="source",
        metavar="DIR",
        default_text="--checkpoint in its place",
        path=True,
    )
    checkpoint: str | None = setting(
        None,
        help="Checkpoint of a run, or any weights of --student.",
        group="source",
        metavar="FILE",
        default_text="--run in its place",
        path=True,
    )
    student: str | None = setting(
        None,
        help="Architecture of the weights in --checkpoint.",
        group="source",
        metavar="NAME",
        default_text="what their card says",
    )
    alpha: float | None = setting(
        None,
        help="Averages the last checkpoint of the run anew, with this share of the trained weights.",
        group="source",
        min=0,
        max=1,
        default_text="what the run exported",
    )
    mode: str | None = setting(
        None,
        help="Read-out that the new card names.",
        group="export",
        metavar="NAME",
        default_text="the run's, else value",
    )
    format: Literal["safetensors", "pt"] | None = setting(
        None,
        help="File format.",
        group="export",
        default_text="as --out ends, else what readers of the layout open",
    )
    out: str | None = setting(
        None,
        help="File to write.",
        group="export",
        metavar="FILE",
        default_text="RUN/export/LAYOUT.FORMAT",
        path=True,
    )


def with_current_values(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config.json with what it says in today's values.

    Runs recorded the decoupling as a number before its variants had names; 2 and 3 then had each other's
    meaning.
    """
    former = {1: "none", 2: "stuff-only", 3: "full", 4: "densevlm"}
    found = dict(recorded)
    if recorded.get("decoupling") in former:
        found["decoupling"] = former[recorded["decoupling"]]
    return found


def defaults(config: TrainerConfig) -> dict[str, Any]:
    """The settings that have a default, as they are in config.json."""
    found: dict[str, Any] = {}
    for field in fields(config):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
