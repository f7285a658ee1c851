"""The bytes of columns, from those of a sample of the photos."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.hub import cache_alone
from densecli.pipeline.build_request import BuildRequest
from densecli.pipeline.plan_config import PlanConfig
from densecli.pipeline.plan_sample import BLOCK_BYTES, Sample, take_sample
from densecli.pipeline.sources import Source
from densecli.pipeline.teachers import teacher_config

RECORD_BYTES = 10240
"""Unit in which a whole tar grows."""


@dataclass(frozen=True)
class Factor:
    """How many times the bytes of its sample a column takes.

    Attributes:
        mean: The factor.
        error: Its standard error.
    """

    mean: float = 1.0
    error: float = 0.0


def measured_factors(
    config: PlanConfig, request: BuildRequest, source: Source, sample: Sample
) -> dict[str, Factor]:
    """How many times the least bytes the columns take, of teachers whose bytes depend on their outputs.

    Those whose weights are at hand see a few of the photos; others are left out.
    """
    teachers = []
    for name in sample.most if config.measured else ():
        # No weights: nothing to measure.
        with suppress(DenseCLIError), cache_alone():
            teachers.append(teacher_config(name, config.build))
    if not teachers:
        return {}
    with_weights = replace(request, targets=tuple((teacher, teacher.spec()) for teacher in teachers))
    found, least = (
        take_sample(with_weights, source, config.measured, run_teachers=run).photo_bytes()[2:]
        for run in (True, False)
    )
    return {
        teacher.name: _factor(bytes_[base > 0] / base[base > 0])
        for teacher, bytes_, base in zip(teachers, found, least, strict=True)
    }


def _factor(of_photos: np.ndarray) -> Factor:
    return Factor(float(of_photos.mean()), float(of_photos.std() / len(of_photos) ** 0.5))


def column_bytes(
    sample: Sample, sizes: Sequence[int], factors: Mapping[str, Factor], *, exact: bool
) -> tuple[list[dict[str, Any]], float]:
    """Estimates the size of each column.

    Args:
        sample: The sample.
        sizes: Number of photos of each shard.
        factors: What was measured of teachers' columns, by name.
        exact: Whether the photos of the sample are among those of the shards.

    Returns:
        Kind, name and bytes (without column.json) of each column, `most_bytes` where these are the least;
        and the relative half-width of the 95 % interval of the total bytes.
    """
    n, listed = sum(sizes), len(sample.places)
    columns: list[dict[str, Any]] = []
    totals, errors = np.zeros(listed), []
    for column, receipts, known in zip(sample.columns, sample.receipts, sample.photo_bytes(), strict=True):
        if column.computed:
            columns.append({"kind": column.kind, "name": column.name, "bytes": 0})
            continue
        factor = factors.get(column.name, Factor()) if column.kind == "targets" else Factor()
        totals += known * factor.mean
        errors.append(known.mean() * factor.error)
        each = np.full(n, known.mean())
        if exact:
            each[sample.places] = known
        bare = sum(len(replace(receipt, members={}).to_json()) for receipt in receipts)
        entries = sum(len(receipt.to_json()) for receipt in receipts) - bare
        rest = len(sizes) * bare / len(receipts) + n * entries / listed
        about = {"kind": column.kind, "name": column.name, "bytes": _tars(each * factor.mean, sizes, rest)}
        if column.kind == "targets" and column.name in sample.most.keys() - factors.keys():
            about["most_bytes"] = _tars(each * sample.most[column.name], sizes, rest)
        columns.append(about)
    error = (totals.std() ** 2 / listed + sum(each**2 for each in errors)) ** 0.5
    return columns, float(1.96 * error / totals.mean())


def _tars(photos: np.ndarray, sizes: Sequence[int], rest: float) -> int:
    """Bytes of a column's tars and of the rest, from those of the photos in the tars."""
    shards = np.add.reduceat(photos, np.cumsum([0, *sizes[:-1]])) + 2 * BLOCK_BYTES
    return round(float((np.ceil(shards / RECORD_BYTES) * RECORD_BYTES).sum()) + rest)
