"""The config.json of a run: the settings that may change when it is resumed, and its other entries."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from densecli.train.trainer_config import TrainerConfig

# Settings that may change when a run is resumed. On the same device they change numbers only by the order of
# sums and, for `compile`, by the roundings between operations that are done as one. Processes and batches may
# share the samples of a step differently; `samples_per_step` must stay.
FREE = frozenset(
    {
        "store",
        "run",
        "weights",
        "init",
        "resume",
        "device",
        "workers",
        "cache",
        "cache_gb",
        "prefetch_mb",
        "ranks",
        "batch_size",
        "accumulate",
        "activation_checkpointing",
        "compile",
        "fsdp",
        "max_nonfinite_steps",
        "checkpoint_every",
        "keep_checkpoints",
        "dry_run",
        "loggers",
        "picture_every",
        "evaluate_every",
        "evaluate_limit",
        "evaluate_data",
        "evaluate_split",
        "evaluate_categories",
        "keep_best",
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
        "part_columns",
        "initial_weights",
        "random_weights",
        "preset",
        "refiner_version",
        "files",
    }
)
"""Keys of a run's config.json that are not settings, but follow from them, the store and the machine."""


def with_current_values(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Brings an older run's config.json up to date.

    Before the decoupling variants had names, runs recorded a number, and 2 and 3 were swapped.
    """
    former = {1: "none", 2: "stuff-only", 3: "full", 4: "densevlm"}
    found = dict(recorded)
    if isinstance(recorded.get("decoupling"), int) and recorded["decoupling"] in former:
        found["decoupling"] = former[recorded["decoupling"]]
    return found


def defaults(config: TrainerConfig) -> dict[str, Any]:
    """The default values of all settings that have one, in the form of config.json."""
    found: dict[str, Any] = {}
    for field in fields(config):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
