"""Methods: presets of weighted loss terms, and the columns the terms read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from densecli.core.errors import DenseCLIError

TERMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "region_kl": ("labels",),
        "region_text": ("labels",),
        "region_cosine": ("crops",),
        "context": ("gram", "self"),
        "spatial": ("self", "refined", "gram"),
    }
)
"""term -> the kinds of column it can learn from, the first one where none is named."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A preset of a training.

    Attributes:
        losses: Weights of loss terms, each written TERM or TERM:KIND.
        large: Those that differ for a student of a ViT-L's size.
        settings: Values of other settings of `train.config.TrainConfig`. A student that has no read-out of
            the name in `mode` is read out as `value`; what is frozen follows from the mode, see
            `DenseCLIP.frozen_names`.
    """

    losses: Mapping[str, float]
    large: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def weights(self, *, large: bool) -> dict[str, float]:
        """`losses` for a student of a ViT-L's size or another."""
        return {**self.losses, **(self.large if large else {})}


# DeCLIP: the weight of `context` and the read-out, as the paper says and as its released code does.
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "densevlm": Method(losses={"region_kl": 1.0}),
        "clipself": Method(losses={"region_cosine": 1.0}),
        "regiontext": Method(losses={"region_text": 1.0}),
        "declip": Method(
            losses={"region_cosine": 1.0, "context": 0.25}, settings={"mode": "qq+scale+rope+unit"}
        ),
        "declip-released": Method(losses={"region_cosine": 1.0, "context": 0.1}, settings={"mode": "qq"}),
        "sc-clipself": Method(
            losses={"region_cosine": 1.0, "spatial:self": 0.2}, large={"spatial:self": 0.4}
        ),
        "sc-regiontext": Method(
            losses={"region_text": 1.0, "spatial:self": 0.2}, large={"spatial:self": 0.4}
        ),
        "r-sc-clipself": Method(
            losses={"region_cosine": 1.0, "spatial:refined": 0.2}, large={"spatial:refined": 0.4}
        ),
        "r-sc-regiontext": Method(
            losses={"region_text": 1.0, "spatial:refined": 0.2}, large={"spatial:refined": 0.4}
        ),
        "r-sc-v": Method(losses={"spatial:refined": 1.0}),
    }
)


def find_method(name: str) -> Method:
    """The preset of a name. Raises DenseCLIError listing the known ones."""
    if name not in METHODS:
        raise DenseCLIError(f"There is no method {name!r}.", hint=f"Known methods: {', '.join(METHODS)}.")
    return METHODS[name]


def term_and_kind(loss: str) -> tuple[str, str]:
    """TERM or TERM:KIND -> the term and the kind of column it reads. Raises DenseCLIError for others."""
    term, _, kind = loss.partition(":")
    if term not in TERMS:
        raise DenseCLIError(f"There is no loss term {term!r}.", hint=f"Known terms: {', '.join(TERMS)}.")
    if kind and kind not in TERMS[term]:
        raise DenseCLIError(
            f"The loss term {term} cannot read a {kind} column.", hint=f"It reads: {', '.join(TERMS[term])}."
        )
    return term, kind or TERMS[term][0]


def parse_losses(words: Iterable[str]) -> dict[str, float]:
    """{"region_kl": 1.0, "spatial:gram": 0.2} of ["region_kl=1", "spatial:gram=0.2"].

    Raises DenseCLIError for an unknown term or a weight that is not a positive number.
    """
    weights = {}
    for word in words:
        loss, _, weight = word.partition("=")
        term_and_kind(loss)
        try:
            weights[loss] = float(weight)
        except ValueError:
            weights[loss] = 0.0
        if not 0 < weights[loss] < float("inf"):
            raise DenseCLIError(
                f"The loss {word!r} has no positive weight.",
                hint=f"Write it as {loss}=W, for example {loss}=1.",
            )
    return weights
