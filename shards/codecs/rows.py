"""Embeddings, each row by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from densecli.shards.codecs.base import CODECS, FLOATS, Errors, largest, mean
from densecli.shards.quantise import ALL, Arrays, Some, dequantise, quantise
from densecli.shards.specs import CodecSpec


@CODECS.register("rows", help="Embeddings: int8 with a scale for each row, fp16 or fp32.")
@dataclass(frozen=True, kw_only=True)
class Rows:
    """Embeddings in int8 with one fp32 scale per row, in fp16, or in fp32 (lossless).

    Attributes:
        dtype: int8, fp16 or fp32.
    """

    dtype: str = "int8"

    @property
    def spec(self) -> CodecSpec:
        """See `Codec.spec`."""
        return {"name": "rows", "dtype": self.dtype}

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """See `Codec.blank`."""
        return blank_rows(shape, self.dtype, np.float32)

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """Encodes (N, C) rows.

        Returns:
            `x` (N, C), with int8 also `scale` float32 (N,); and their `error`.
        """
        arrays = quantise(x, np.float32) if self.dtype == "int8" else {"x": x.astype(FLOATS[self.dtype])}
        return arrays, self.error(arrays, x)

    def error(self, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> Errors:
        """`max_abs`: largest absolute error of an entry. `mean_cosine`: mean over rows of 1 - cosine."""
        exact, decoded = x.astype(np.float64), self.decode(arrays).astype(np.float64)
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(decoded, axis=1)
        # A zero row has no direction to lose.
        cosine = np.divide((exact * decoded).sum(1), norms, out=np.ones(len(x)), where=norms > 0)
        return {"max_abs": largest(np.abs(exact - decoded)), "mean_cosine": mean(1 - cosine)}

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """(R, C) float32 of some rows."""
        return dequantise(arrays, rows)


def blank_rows(shape: tuple[int, int], dtype: str, scale_dtype: type[np.floating[Any]]) -> Arrays:
    """Zeros with the shapes and types in which (N, C) rows are stored."""
    if dtype == "int8":
        return {"x": np.zeros(shape, np.int8), "scale": np.zeros(shape[0], scale_dtype)}
    return {"x": np.zeros(shape, FLOATS[dtype])}
