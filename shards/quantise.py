"""Rows of numbers as int8 with one scale per row, and back."""

from collections.abc import Mapping

import numpy as np

Arrays = dict[str, np.ndarray]
Some = np.ndarray | slice
"""Indices of rows."""
ALL = slice(None)
_SMALLEST_NORMAL = np.float32(2**-14)
"""Of float16."""


def quantise(x: np.ndarray, scale_dtype: type) -> Arrays:
    """Quantises (N, C) rows to `x` int8 (N, C) and `scale` (N,): x * scale is nearest to the row.

    A row of zeros has scale 0.
    """
    scale = (np.abs(x).max(axis=1) / 127).astype(scale_dtype)
    # Divided by the scale as stored, so that its rounding costs nothing but the ends of the range.
    wide = scale.astype(np.float64)[:, None]
    steps = np.divide(x, wide, out=np.zeros(x.shape), where=wide > 0)
    return {"x": np.clip(np.rint(steps), -127, 127).astype(np.int8), "scale": scale}


def dequantise(arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
    """(R, C) float32 of some rows of `x`, times `scale` where there is one."""
    x = arrays["x"][rows].astype(np.float32)
    return x * arrays["scale"][rows].astype(np.float32)[:, None] if "scale" in arrays else x


def halves(x: np.ndarray) -> np.ndarray:
    """float16 of float32 numbers that are not negative, as `x.astype(np.float16)` rounds them.

    numpy raises the flag of an underflow for each number below the normal ones, at 20 times the cost.
    """
    small = x < _SMALLEST_NORMAL
    found = np.where(small, 0, x).astype(np.float16)
    # Below, halves are the multiples of 2^-24, and their bits count them.
    found.view(np.uint16)[small] = np.rint(x[small] * np.float32(2**24))
    return found
