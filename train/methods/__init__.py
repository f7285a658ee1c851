"""Methods by name: presets of weighted loss terms, other settings, and settings of the store.

To add one, write an entry in `densecli.train.methods.papers`, or a plug-in:

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
    """The settings of a method.

    Attributes:
        losses: Weights of loss terms, each written TERM or TERM:KIND.
        settings: Values of other settings of `TrainConfig`. A student without the read-out in `mode` is read
            out as `value`. The mode decides what is frozen; see `DenseCLIP.frozen_names`.
        store: Values of `canvas` and `regions` of build-shards, for a store of photos. Generated data sets
            keep their own.
        of_pvlm: Kinds of target to read whose teacher is the P-VLM, where otherwise it is the student itself.
    """

    losses: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    store: Mapping[str, Any] = field(default_factory=dict)
    of_pvlm: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method(Preset):
    """The preset of a training.

    Attributes:
        large: Settings that differ for a student of ViT-L's size.
        gpus: Number of GPUs of its authors, each with a batch of `batch_size`; 0 if it is not known.
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
            of_pvlm=self.of_pvlm,
        )


METHODS: Registry[Method] = registry("methods", package=__name__, noun="method", of=Method)


def find_method(name: str) -> Method:
    """Finds a preset. Raises DenseCLIError with the nearest names if it is unknown."""
    return METHODS[name]
