"""Errors of stored targets from the outputs of teachers."""

from collections.abc import Mapping

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.shards.codecs import Errors, combine_errors
from densecli.shards.specs import FULL_PRECISION
from densecli.shards.store import Column


def stored_error(column: Column, stored: Mapping[str, np.ndarray], target: np.ndarray) -> Errors:
    """Returns the codec's errors of a photo's stored arrays, box by box if each has its own factors.

    Args:
        column: The column.
        stored: The arrays.
        target: The output of a teacher, before any codec.

    Raises:
        DenseCLIError: The arrays have another shape.
    """
    codec, side = column.codec, column.side
    rows = target.reshape(-1, target.shape[-1])
    arrays = {name: stored[name] for name in codec.blank(rows.shape)}
    if len(next(iter(arrays.values()))) != len(rows):
        raise DenseCLIError(
            f"The targets in {column.url} have another shape than the outputs of their teacher.",
            hint="Run densecli lint; if that finds nothing, build the column again with this release.",
        )
    if not side:
        return codec.error(arrays, rows)
    size = side**2
    return combine_errors(
        [
            codec.error({name: array[i : i + size] for name, array in arrays.items()}, rows[i : i + size])
            for i in range(0, len(rows), size)
        ]
    )


def of_full_precision(errors: Errors) -> Errors:
    """Renames errors that were measured against a teacher in full precision: `max_tv` is `max_fp32_tv`."""
    return {
        f"max_{FULL_PRECISION}_{name.removeprefix('max_')}"
        if name.startswith("max_")
        else f"{FULL_PRECISION}_{name}": value
        for name, value in errors.items()
    }
