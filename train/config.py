"""What every run is asked for, and what of it may change when the run is resumed."""

from dataclasses import MISSING, dataclass, fields
from typing import Any

from densecli.train.dataloader import LoaderConfig
from densecli.train.run_folder import Resume

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
    }
)


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(LoaderConfig):
    """What every run has.

    store, run: folders. student: architecture; weights: its initial ones, PATH or random:SEED (None: looked
    up by name). batch_size: samples that a process takes at once; accumulate: how often it does so before a
    step. seen_samples: length of the run in samples, in place of `epochs`, rounded up to whole steps;
    max_steps: in steps, in place of both. lr: the peak.
    warmup_steps: None is 1000, or a tenth of a run shorter than 10,000 steps. precision: fp32; tf32; bf16,
    where what autocast leaves in float32 is multiplied as tf32; or auto (bf16 on a GPU). compile: by
    torch.compile. activation_checkpointing: activations are made again in the backward, for memory.
    max_nonfinite_steps: those of the whole run that are skipped because their loss or gradient is not finite.
    checkpoint_every: in steps. schedule: of the learning rate.
    loggers: beside metrics.jsonl. picture_every: steps between pictures (None: one with every checkpoint).
    dry_run: say what would be done, write nothing.
    """

    store: str
    run: str
    student: str = "eva02-b16"
    weights: str | None = None
    batch_size: int = 48
    accumulate: int = 1
    epochs: int = 6
    seen_samples: int | None = None
    max_steps: int | None = None
    lr: float = 1e-5
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int | None = None
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    activation_checkpointing: bool = False
    max_nonfinite_steps: int = 0
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    resume: Resume = "interrupted"
    dry_run: bool = False
    schedule: str = "cosine"
    loggers: tuple[str, ...] = ("tensorboard",)
    picture_every: int | None = None


def defaults(config: TrainerConfig) -> dict[str, Any]:
    """The settings that have a default, as they are in config.json."""
    found: dict[str, Any] = {}
    for field in fields(config):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
