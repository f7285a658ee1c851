"""Methods by name: presets of weighted loss terms, of settings, and of what a store has to hold.

A new one is an entry in `densecli.train.methods.papers`, or a plug-in:

    from densecli.train.methods import METHODS, Method

    METHODS.add("my-method", Method(losses={"region_kl": 1.0}), help="What it is.")
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from densecli.core.registry import Registry, registry
from densecli.models.registry import size_of


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What a method sets.

    Attributes:
        losses: Weights of loss terms, each written TERM or TERM:KIND.
        settings: Values of other settings of `TrainConfig`. A student that has no read-out of the name in
            `mode` is read out as `value`; what is frozen follows from the mode, see `DenseCLIP.frozen_names`.
        store: Values of settings of build-shards, `canvas` and `regions`, for a store of photos. A generated
            data set keeps its own.
    """

    losses: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    store: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method(Preset):
    """A preset of a training.

    Attributes:
        large: What differs for a student of a ViT-L's size.
        gpus: On how many GPUs, each with a batch of `batch_size`, its authors train. 0: not known.
    """

    large: Preset = field(default_factory=Preset)
    gpus: int = 0

    def for_student(self, student: str) -> Preset:
        """The preset for a student, by the name of its architecture."""
        large = self.large if size_of(student) == "large" else Preset()
        return Preset(
            losses={**self.losses, **large.losses},
            settings={**self.settings, **large.settings},
            store={**self.store, **large.store},
        )


METHODS: Registry[Method] = registry("methods", package=__name__, noun="method", of=Method)


def find_method(name: str) -> Method:
    """The preset of a name. Raises DenseCLIError with the nearest names for an unknown one."""
    return METHODS[name]
