"""The settings that every training has."""

from dataclasses import dataclass
from typing import Literal

from densecli.core.key_share import KeyRange
from densecli.core.settings import Settings, changed, setting
from densecli.shards.config import DeviceSettings, DryRunSettings, StoreSettings
from densecli.shards.datasets import Dataset

Resume = Literal["interrupted", "never", "overwrite"]
WARMUP_STEPS = 1000
"""Warm-up steps of all three papers."""
HELD_OUT = "holdout"
"""What the places of held-out keys follow from; see `KeyRange`. Without a seed: all runs have the same."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig(Settings):
    """How batches are read from a store."""

    batch_size: int = setting(
        help="Samples in a batch of each process.", group="optimisation", min=1, metavar="N"
    )
    seed: int = setting(
        0, help="Seed of the order of samples, of their views and of new weights.", group="run", metavar="N"
    )
    photos_share: float = setting(
        1.0,
        help="Share of the photos to train on, chosen by key and --seed; a smaller share lies inside a "
        "larger one.",
        group="data",
        above=0,
        max=1,
        metavar="SHARE",
    )
    drop_last: bool = setting(
        False, help="Leaves out the last step of an epoch if it has fewer samples.", group="optimisation"
    )
    lanes: int | None = setting(
        None,
        help="Lanes: parts of the store that are shuffled by themselves, so that each process reads its own. "
        "The order of the samples depends on their number, not on that of the processes.",
        group="run",
        min=1,
        metavar="N",
        default_text="the run's, else up to four for each process",
    )
    shuffle_window: int = setting(
        4, help="Shards of a lane that are shuffled together.", group="run", min=1, metavar="N"
    )
    prefetch_mb: float = setting(
        1000.0,
        help="Megabytes of photos that each process fetches ahead of their use: 1 to 16 shards.",
        group="speed",
        above=0,
        metavar="MB",
    )
    workers: int = setting(
        2,
        help="Threads that decode ahead of the training step; 0 decodes in the step itself.",
        group="speed",
        min=0,
        metavar="N",
    )
    cache: str | None = setting(
        None,
        help="Local folder that keeps the shards of a remote store; processes may share it.",
        group="speed",
        metavar="DIR",
        default_text="no cache: every epoch fetches them again",
        path=True,
    )
    cache_gb: float = setting(
        100.0, help="Largest size of that folder in GB (1e9 bytes).", group="speed", above=0, metavar="GB"
    )

    @property
    def key_ranges(self) -> tuple[KeyRange, ...]:
        """The keys of the photos that are read; empty for all."""
        return photos_within(self.photos_share, self.seed)


def photos_within(share: float, seed: int) -> tuple[KeyRange, ...]:
    """The keys of a share of the photos; empty for all. Another seed draws other photos."""
    return (KeyRange(f"photos-{seed}", 0.0, share),) if share < 1 else ()


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(StoreSettings, LoaderConfig, DeviceSettings, DryRunSettings):
    """The settings of every training."""

    run: str = setting(
        help="Folder of the run.",
        group="run",
        metavar="DIR",
        default_text="runs/, named after what is trained on what",
        path=True,
    )
    student: str = setting(
        Dataset.student,
        help="Model to train.",
        group="model",
        metavar="NAME",
        default_text=f"the data set's; {Dataset.student} for photos",
    )
    weights: str | None = setting(
        None,
        help="Initial weights: a file, hf-hub:ORG/REPO[/FILE][@REVISION], open_clip:TAG or random:SEED.",
        group="model",
        metavar="NAME=PATH",
        default_text="weights/NAME.*, else the published ones",
        path=True,
        named=True,
    )
    batch_size: int = changed(LoaderConfig, "batch_size", default=48)
    accumulate: int = setting(
        1, help="Batches of each process in an optimiser step.", group="optimisation", min=1, metavar="N"
    )
    epochs: int = setting(
        6, help="Length of the training in epochs.", group="optimisation", min=1, metavar="N"
    )
    seen_samples: int | None = setting(
        None,
        help="Length of the training in samples, rounded up to whole steps.",
        group="optimisation",
        min=1,
        metavar="N",
        default_text="from --epochs",
    )
    max_steps: int | None = setting(
        None,
        help="Length of the training in steps; overrides --epochs and --seen-samples.",
        group="optimisation",
        min=1,
        metavar="N",
        default_text="from --epochs or --seen-samples",
    )
    lr: float = setting(1e-5, help="Peak learning rate.", group="optimisation", above=0)
    weight_decay: float = setting(0.1, help="Weight decay of AdamW.", group="optimisation", min=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.98), help="Betas of AdamW.", group="optimisation", min=0, max=1, metavar="B1 B2"
    )
    warmup_steps: int | None = setting(
        None,
        help="Steps over which the learning rate rises to its peak.",
        group="optimisation",
        min=0,
        metavar="N",
        default_text=f"{WARMUP_STEPS}; a tenth of a training of up to 1000 steps",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = setting(
        "auto", help="Precision; auto is bf16 on a GPU, else fp32.", group="speed"
    )
    compile: bool | None = setting(
        None,
        help="Compiles the network with torch.compile, once: a short batch is filled up.",
        group="speed",
        default_text="on for a GPU, where Triton and a C compiler are installed",
    )
    activation_checkpointing: bool | None = setting(
        None,
        help="Recomputes activations in the backward pass: less memory, more time.",
        group="speed",
        default_text="on if a step would not fit into the GPU's memory, and with --fsdp",
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
    keep_checkpoints: int = setting(
        2, help="Checkpoints to keep, those written last.", group="run", min=1, metavar="N"
    )
    evaluate_every: int | None = setting(
        None,
        help="Steps between measurements, of annotated photos or of those that --holdout keeps out; the last "
        "one is after the last step.",
        group="watch",
        min=1,
        metavar="STEPS",
        default_text="--checkpoint-every",
    )
    evaluate_limit: int = setting(
        300,
        help="Measures the first N annotated photos, and about N of those held out.",
        group="watch",
        min=1,
        metavar="N",
    )
    keep_best: str | None = setting(
        None,
        help="Keeps and exports the checkpoint that is the best by this measurement, such as Masks-S, "
        "holdout/agreement or holdout/loss.",
        group="watch",
        metavar="METRIC",
        default_text="the last weights alone",
    )
    resume: Resume = setting(
        "interrupted",
        help="What to do with an existing run: continue it, refuse, or replace it.",
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
        help="Logger, besides metrics.jsonl; see densecli list loggers. May be given several times.",
        group="run",
        metavar="NAME",
        registry="loggers",
    )
    holdout: float = setting(
        0.0,
        help="Share of the photos that are kept out of the training, chosen by their keys, to measure on.",
        group="watch",
        min=0,
        max=0.5,
        metavar="SHARE",
    )
    picture_every: int | None = setting(
        None,
        help="Steps between pictures of a few photos in the log.",
        group="run",
        min=1,
        metavar="STEPS",
        default_text="one with every checkpoint",
    )

    @property
    def key_ranges(self) -> tuple[KeyRange, ...]:
        """See `LoaderConfig.key_ranges`; without the photos that are held out."""
        held_out = (KeyRange(HELD_OUT, self.holdout, 1.0),) if self.holdout else ()
        return (*super().key_ranges, *held_out)
