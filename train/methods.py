"""Methods: presets of weighted loss terms, and the column each term reads."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from shards.errors import DenseCLIError

# term -> the kind of column it learns from
TERMS: Mapping[str, str] = MappingProxyType({"region_kl": "labels"})

METHODS: Mapping[str, Mapping[str, float]] = MappingProxyType({"densevlm": {"region_kl": 1.0}})


def method_weights(method: str) -> dict[str, float]:
    """Term weights of the preset `method`. Raises DenseCLIError listing the known ones."""
    if method not in METHODS:
        raise DenseCLIError(f"There is no method {method!r}.", hint=f"Known methods: {', '.join(METHODS)}.")
    return dict(METHODS[method])


def parse_losses(words: Iterable[str]) -> dict[str, float]:
    """{"region_kl": 1.0} of ["region_kl=1"]. Raises DenseCLIError for an unknown term or a weight that is not
    a positive number."""
    weights = {}
    for word in words:
        term, _, weight = word.partition("=")
        if term not in TERMS:
            raise DenseCLIError(f"There is no loss term {term!r}.", hint=f"Known terms: {', '.join(TERMS)}.")
        try:
            weights[term] = float(weight)
        except ValueError:
            weights[term] = 0.0
        if not 0 < weights[term] < float("inf"):
            raise DenseCLIError(
                f"The loss {word!r} has no positive weight.",
                hint=f"Write it as {term}=W, for example {term}=1.",
            )
    return weights
