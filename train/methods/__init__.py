"""Methods by name: presets of weighted loss terms and other settings.

To add one, write an entry in `densecli.train.methods.papers`, or a plug-in:

    from densecli.train.methods import METHODS, Method

    METHODS.add("my-method", Method(losses={"region_kl": 1.0}), help="What it is.")
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from densecli.core.registry import Registry, registry


@dataclass(frozen=True, kw_only=True)
class Method:
    """A preset for a training.

    Attributes:
        losses: Weights of loss terms, each written TERM or TERM:KIND.
        large: Weights that differ for a student of ViT-L's size.
        settings: Values of other settings of `TrainConfig`. A student without the read-out in `mode` is read
            out as `value`. The mode decides what is frozen; see `DenseCLIP.frozen_names`.
    """

    losses: Mapping[str, float]
    large: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mode(self) -> str:
        """The student's read-out mode."""
        return str(self.settings.get("mode", "value"))

    def weights(self, *, large: bool) -> dict[str, float]:
        """The weights for a student of ViT-L's size, or of another."""
        return {**self.losses, **(self.large if large else {})}


METHODS: Registry[Method] = registry("methods", package=__name__, noun="method")


def find_method(name: str) -> Method:
    """Finds a preset. Raises DenseCLIError with the nearest names if it is unknown."""
    return METHODS[name]
