"""Counts of predicted classes of regions, and the accuracies that follow from them.

Counts are integers, so those of several processes or batches add up exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from densecli.core.errors import DenseCLIError
from densecli.evaluation.conditions import Conditions
from densecli.models.categories import Categories

SIZES = ("small", "medium", "large")
"""COCO's segment sizes: less than 32^2 pixels of the photo, less than 96^2, and the others."""
_SIZE_LIMITS = (32**2, 96**2)


@dataclass(frozen=True, kw_only=True)
class RegionCounts:
    """Numbers of regions.

    Attributes:
        predicted: (3, D, D + 1) int64, by size, true class and predicted class. The last column counts
            regions without a token, which have no prediction.
        top5: (3, D) int64, by size and true class: regions whose true class is among the best five.
    """

    predicted: np.ndarray
    top5: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> RegionCounts:
        return cls(
            predicted=np.zeros((len(SIZES), classes, classes + 1), np.int64),
            top5=np.zeros((len(SIZES), classes), np.int64),
        )

    def __add__(self, other: RegionCounts) -> RegionCounts:
        return RegionCounts(predicted=self.predicted + other.predicted, top5=self.top5 + other.top5)


def require_finite(scores: torch.Tensor) -> None:
    """Raises DenseCLIError if a number is not finite."""
    if not torch.isfinite(scores).all():
        raise DenseCLIError(
            "The model gives features that are not finite.",
            hint="The weights are damaged or the training diverged: use an earlier checkpoint.",
        )


def count(scores: np.ndarray, labels: np.ndarray, areas: np.ndarray) -> RegionCounts:
    """Counts regions by size, true class and predicted class.

    Args:
        scores: (R, D). The highest is the prediction; a tie counts against the true class. A region without a
            token scores 0 for every class.
        labels: (R,) true classes.
        areas: (R,) pixels of the photo.

    Raises:
        DenseCLIError: A score is not finite.
    """
    require_finite(torch.from_numpy(scores))
    counts = RegionCounts.empty(scores.shape[1])
    if not len(scores):
        return counts
    sizes, rows = np.digitize(areas, _SIZE_LIMITS), np.arange(len(labels))
    behind = scores.astype(np.float32)
    behind[rows, labels] = np.nextafter(behind[rows, labels], np.float32(-np.inf))
    predicted = np.where(scores.any(1), behind.argmax(1), scores.shape[1])
    np.add.at(counts.predicted, (sizes, labels, predicted), 1)
    np.add.at(counts.top5, (sizes, labels), true_class_ranks(scores, labels) < 5)
    return counts


def true_class_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores (R, D), labels (R,) -> (R,): how many other classes score as high as the true one, or higher."""
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    ranks: np.ndarray = (scores >= true).sum(1) - 1
    return ranks


@dataclass(frozen=True, kw_only=True)
class PhotoCounts:
    """Counts over some photos.

    Attributes:
        boxes: Counts of the boxes of things.
        masks: Counts of the masks of all segments.
        skipped: Number of segments left out because of their box area.
        absent: Number of segments left out because no pixel of their PNG has their id.
    """

    boxes: RegionCounts
    masks: RegionCounts
    skipped: int
    absent: int = 0

    def __add__(self, other: PhotoCounts) -> PhotoCounts:
        return PhotoCounts(
            boxes=self.boxes + other.boxes,
            masks=self.masks + other.masks,
            skipped=self.skipped + other.skipped,
            absent=self.absent + other.absent,
        )


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Accuracies of one class that is present, in percent; box figures are None for stuff."""

    name: str
    thing: bool
    segments: int
    boxes_top1: float | None
    boxes_top5: float | None
    masks_top1: float | None
    masks_top5: float | None


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """Top-1 accuracies over the segments of one of `SIZES`, in percent: means over the classes present."""

    name: str
    things: int
    stuffs: int
    boxes_top1: float | None
    masks_thing_top1: float | None
    masks_stuff_top1: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """The result of region classification, in percent. A figure is None if the data has no such segment.

    Accuracies are means over the classes present.

    Attributes:
        stuff_as_thing: Share of stuff segments whose mask is classified as a thing: the foreground bias.
        things: Number of thing segments.
        stuffs: Number of stuff segments.
        skipped: Segments left out because of their box area.
        absent: Segments left out because no pixel of their PNG has their id.
        vanished: Segments whose mask covers no token.
        confusion: (D, D + 1) counts of masks by true class and predicted class; the last column counts masks
            without a token.
        weights: Where the weights are from.
        random_weights: Whether the weights, or those of a teacher behind them, began as random ones.
        measured: The conditions; None if they are not known.
    """

    boxes_top1: float | None
    boxes_top5: float | None
    masks_thing_top1: float | None
    masks_thing_top5: float | None
    masks_stuff_top1: float | None
    masks_stuff_top5: float | None
    stuff_as_thing: float | None
    things: int
    stuffs: int
    skipped: int
    absent: int
    vanished: int
    classes: tuple[ClassRow, ...]
    sizes: tuple[SizeRow, ...]
    categories: Categories
    confusion: np.ndarray
    weights: str
    random_weights: bool
    measured: Conditions | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values. The confusion is {true class: {predicted class: count}}, with "" for no prediction."""
        names = [*self.categories.names, ""]
        confusion = {
            names[true]: {names[c]: int(row[c]) for c in np.flatnonzero(row)}
            for true, row in enumerate(self.confusion)
            if row.any()
        }
        figures = {
            name: value
            for name, value in vars(self).items()
            if name not in ("classes", "sizes", "categories", "confusion", "measured")
        }
        return {
            **figures,
            "measured": asdict(self.measured) if self.measured else None,
            "classes": [asdict(row) for row in self.classes],
            "sizes": [asdict(row) for row in self.sizes],
            "confusion": confusion,
        }


def summarize(
    counts: PhotoCounts, categories: Categories, weights: str, *, random_weights: bool = False
) -> Classification:
    """Computes accuracies from counts.

    Args:
        counts: Over all photos.
        categories: The category set of the classes.
        weights: Where the model's weights are from.
        random_weights: Whether the weights, or those of a teacher behind them, began as random ones.
    """
    thing = categories.thing_flags()
    predicted = counts.masks.predicted.sum(0)
    of_stuff = predicted[~thing]
    boxes1, boxes5, boxes = _hits(counts.boxes)
    masks1, masks5, masks = _hits(counts.masks)
    return Classification(
        boxes_top1=_accuracy(boxes1, boxes, thing),
        boxes_top5=_accuracy(boxes5, boxes, thing),
        masks_thing_top1=_accuracy(masks1, masks, thing),
        masks_thing_top5=_accuracy(masks5, masks, thing),
        masks_stuff_top1=_accuracy(masks1, masks, ~thing),
        masks_stuff_top5=_accuracy(masks5, masks, ~thing),
        stuff_as_thing=_percent(of_stuff[:, :-1][:, thing].sum(), of_stuff.sum()),
        things=int(masks.sum(0)[thing].sum()),
        stuffs=int(masks.sum(0)[~thing].sum()),
        skipped=counts.skipped,
        absent=counts.absent,
        vanished=int(predicted[:, -1].sum()),
        classes=tuple(
            ClassRow(
                name=categories.names[c],
                thing=bool(thing[c]),
                segments=int(masks.sum(0)[c]),
                boxes_top1=_percent(boxes1.sum(0)[c], boxes.sum(0)[c]),
                boxes_top5=_percent(boxes5.sum(0)[c], boxes.sum(0)[c]),
                masks_top1=_percent(masks1.sum(0)[c], masks.sum(0)[c]),
                masks_top5=_percent(masks5.sum(0)[c], masks.sum(0)[c]),
            )
            for c in np.flatnonzero(masks.sum(0))
        ),
        sizes=tuple(
            SizeRow(
                name=name,
                things=int(masks[s][thing].sum()),
                stuffs=int(masks[s][~thing].sum()),
                boxes_top1=_accuracy(boxes1[[s]], boxes[[s]], thing),
                masks_thing_top1=_accuracy(masks1[[s]], masks[[s]], thing),
                masks_stuff_top1=_accuracy(masks1[[s]], masks[[s]], ~thing),
            )
            for s, name in enumerate(SIZES)
        ),
        categories=categories,
        confusion=predicted,
        weights=weights,
        random_weights=random_weights,
    )


def _hits(counts: RegionCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By size and class, (3, D) each: regions classified correctly, in the top five, and in total."""
    return np.diagonal(counts.predicted, axis1=1, axis2=2), counts.top5, counts.predicted.sum(2)


def _accuracy(hits: np.ndarray, regions: np.ndarray, of: np.ndarray) -> float | None:
    """(sizes, D) hits and regions -> percent, the mean over the classes `of` (D,) that are present."""
    return _mean(_percent(h, n) for h, n in zip(hits.sum(0)[of], regions.sum(0)[of], strict=True))


def _percent(hits: int, of: int) -> float | None:
    return float(100 * hits / of) if of else None


def _mean(values: Iterable[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None
