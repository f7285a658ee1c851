"""The config.json of a run: which of its settings may change when it is resumed, and what else it says."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from densecli.train.trainer_config import TrainerConfig

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


def with_current_values(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config.json with what it says in today's values.

    Runs recorded the decoupling as a number before its variants had names; 2 and 3 then had each other's
    meaning.
    """
    former = {1: "none", 2: "stuff-only", 3: "full", 4: "densevlm"}
    found = dict(recorded)
    if isinstance(recorded.get("decoupling"), int) and recorded["decoupling"] in former:
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
