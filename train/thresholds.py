"""Thresholds that nobody tunes: for each category, the confidence above which a share of its regions lies."""

import numpy as np
import torch
from torch import Tensor

from densecli.shards.npz import decode_npz
from densecli.shards.store import Column
from densecli.shards.tars import read_shard

REGIONS = 50_000
"""Regions from which thresholds are computed: those of the first shards."""
LEAST = 20
"""A category that fewer regions name gets the threshold of all regions."""


def quantile_thresholds(confidence: np.ndarray, best: np.ndarray, classes: int, keep: float) -> np.ndarray:
    """The confidence above which a share of each category's regions lies.

    Args:
        confidence: (N,) probability of each region's most probable category.
        best: (N,) that category.
        classes: Number of categories.
        keep: Share of the regions to keep, above 0 and at most 1.

    Returns:
        (classes,) float32. A region is kept if its confidence is *above* the threshold, so equal ones are
        kept or left out together.
    """
    overall = _threshold(confidence, keep) if len(confidence) else 0.0
    thresholds = np.full(classes, overall, np.float32)
    for category in np.unique(best):
        own = confidence[best == category]
        if len(own) >= LEAST:
            thresholds[category] = _threshold(own, keep)
    return thresholds


def _threshold(confidence: np.ndarray, keep: float) -> float:
    lowest = np.quantile(confidence.astype(np.float32), 1 - keep, method="lower")
    return float(np.nextafter(np.float32(lowest), np.float32(-1)))


def unlabelled_up_to(column: Column) -> float:
    """The confidence up to which a region has no label, whatever theta is; 0 if every region has one.

    Where P-VLMs disagree, the rule `agree` of a mix stores 1/D for each of D categories.
    """
    if column.spec.get("rule") != "agree":
        return 0.0
    # Stored in fp16.
    return 1.01 / len(column.spec["codec"]["things"])


def first_labels(column: Column, regions: int = REGIONS) -> Tensor:
    """The distributions of a labels column's first regions, (N, D + 2), of whole shards."""
    found, count = list[np.ndarray](), 0
    for shard in column.shard_names:
        for _, members in read_shard(column, shard):
            found.append(column.codec.decode(decode_npz(members["npz"])))
            count += len(found[-1])
        if count >= regions:
            break
    return torch.from_numpy(np.concatenate(found)) if found else torch.zeros(0, 2)
