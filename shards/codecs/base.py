"""The protocol of codecs, and their registry."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from densecli.core.registry import Registry, registry
from densecli.shards.quantise import ALL, Arrays, Some
from densecli.shards.specs import CodecSpec

Errors = dict[str, float]
"""Error figures by name. Over samples, the maximum of `max_NAME` counts, and the mean of any other."""

FLOATS: dict[str, type[np.floating[Any]]] = {"fp16": np.float16, "fp32": np.float32}
"""Floating-point types by their names in specs."""


class Codec(Protocol):
    """Turns the target of a sample, a matrix with a row per box or token, into small arrays and back."""

    @property
    def spec(self) -> CodecSpec:
        """`name`, the codec's name in the registry, and every option that the stored bytes depend on."""
        ...

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """Zeros with the shapes and types that `encode` gives for an (N, C) target, to state its size."""
        ...

    def encode(self, x: np.ndarray, /) -> tuple[Arrays, Errors]:
        """The arrays that store an (N, C) target, and the `error` of what `decode` returns for them."""
        ...

    def error(self, arrays: Mapping[str, np.ndarray], x: np.ndarray, /) -> Errors:
        """The error of decoded arrays from an (N, C) target."""
        ...

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """float32 target of some rows, all by default."""
        ...


CODECS: Registry[Callable[..., Codec]] = registry("codecs", package=__package__, of=Callable)
"""Makes a codec from the options in its spec; usually the class itself, whose fields are these options."""


def codec_from_spec(spec: CodecSpec) -> Codec:
    """The codec whose `spec` this is.

    Args:
        spec: `name` and options. Lists, which JSON has in place of tuples, become tuples.

    Raises:
        DenseCLIError: No codec of that name is registered.
    """
    options: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in spec.items()}
    return CODECS[options.pop("name")](**options)


def combine_errors(errors: list[Errors]) -> Errors:
    """Combines the errors of many samples: the maximum of each `max_NAME`, the mean of each other."""
    names = errors[0] if errors else {}
    return {
        name: (largest if name.startswith("max_") else mean)(np.array([e[name] for e in errors]))
        for name in names
    }


def largest(values: np.ndarray) -> float:
    """The largest of some values that are not negative; 0 of none."""
    return float(values.max(initial=0))


def mean(values: np.ndarray) -> float:
    """The mean of some values; 0 of none."""
    return float(values.mean()) if values.size else 0.0
