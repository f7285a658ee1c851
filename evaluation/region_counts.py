"""What regions were called, counted, and what the counts amount to.

Counts are integers: those of several processes, or of several batches, add up to those of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from densecli.core.errors import DenseCLIError
from densecli.models.categories import Categories

SIZES = ("small", "medium", "large")
"""COCO's: a segment of less than 32^2 pixels of the photo, of less than 96^2, and any larger one."""
_SIZE_LIMITS = (32**2, 96**2)


@dataclass(frozen=True, kw_only=True)
class RegionCounts:
    """Regions counted by size, true class and what they were called.

    called: (3, D, D + 1) int64; in the last column stand regions without a token, which are called nothing.
    top5: (3, D) int64, of how many the true class is among the best five.
    """

    called: np.ndarray
    top5: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> RegionCounts:
        return cls(
            called=np.zeros((len(SIZES), classes, classes + 1), np.int64),
            top5=np.zeros((len(SIZES), classes), np.int64),
        )

    def __add__(self, other: RegionCounts) -> RegionCounts:
        return RegionCounts(called=self.called + other.called, top5=self.top5 + other.top5)


def require_finite(scores: torch.Tensor) -> None:
    """Raises DenseCLIError where a number is not finite."""
    if not torch.isfinite(scores).all():
        raise DenseCLIError(
            "The model gives features that are not finite.",
            hint="The weights are damaged or the training diverged: use an earlier checkpoint.",
        )


def count(scores: np.ndarray, labels: np.ndarray, areas: np.ndarray) -> RegionCounts:
    """Scores (R, D), true classes (R,) and pixels (R,) of regions -> their tally.

    A region is called by its highest score. A tie counts against the true class; a region that scores 0 for
    every class has no token. Raises DenseCLIError for scores that are not finite.
    """
    require_finite(torch.from_numpy(scores))
    tally = RegionCounts.empty(scores.shape[1])
    if not len(scores):
        return tally
    sizes, rows = np.digitize(areas, _SIZE_LIMITS), np.arange(len(labels))
    behind = scores.astype(np.float32)
    behind[rows, labels] = np.nextafter(behind[rows, labels], np.float32(-np.inf))
    called = np.where(scores.any(1), behind.argmax(1), scores.shape[1])
    np.add.at(tally.called, (sizes, labels, called), 1)
    np.add.at(tally.top5, (sizes, labels), true_class_ranks(scores, labels) < 5)
    return tally


def true_class_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores (R, D), labels (R,) -> (R,) how many other classes score at least as high as the true one."""
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    ranks: np.ndarray = (scores >= true).sum(1) - 1
    return ranks


@dataclass(frozen=True, kw_only=True)
class RegionTally:
    """The regions of some photos: `boxes` of things, `masks` of all segments; `skipped` ones were left out by
    box area."""

    boxes: RegionCounts
    masks: RegionCounts
    skipped: int

    def __add__(self, other: RegionTally) -> RegionTally:
        return RegionTally(
            boxes=self.boxes + other.boxes,
            masks=self.masks + other.masks,
            skipped=self.skipped + other.skipped,
        )


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class that is present; percent, and for stuff no box figures (None)."""

    name: str
    thing: bool
    segments: int
    boxes_top1: float | None
    boxes_top5: float | None
    masks_top1: float | None
    masks_top5: float | None


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """The segments of one of `SIZES`: top-1 in percent, means over the classes that have any such."""

    name: str
    things: int
    stuffs: int
    boxes_top1: float | None
    masks_thing_top1: float | None
    masks_stuff_top1: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """Result of region classification, in percent; None where the data has no such segment.

    Accuracies are means over the classes present.

    Attributes:
        stuff_as_thing: Share of stuff segments whose mask is nearest to a thing.
        things: Number of thing segments.
        stuffs: Number of stuff segments.
        skipped: Segments left out by box area.
        vanished: Segments whose mask covers no token.
        confusion: (D, D + 1) counts of masks by true class and predicted class; the last column counts masks
            without a token.
        weights: Where the weights are from.
        random_weights: Whether they, or a teacher's behind them, began as random ones.
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
    vanished: int
    classes: tuple[ClassRow, ...]
    sizes: tuple[SizeRow, ...]
    categories: Categories
    confusion: np.ndarray
    weights: str
    random_weights: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the confusion as {true class: {called: how many}}, "" being nothing."""
        names = [*self.categories.names, ""]
        confusion = {
            names[true]: {names[c]: int(row[c]) for c in np.flatnonzero(row)}
            for true, row in enumerate(self.confusion)
            if row.any()
        }
        said = {
            name: value
            for name, value in vars(self).items()
            if name not in ("classes", "sizes", "categories", "confusion")
        }
        return {
            **said,
            "classes": [asdict(row) for row in self.classes],
            "sizes": [asdict(row) for row in self.sizes],
            "confusion": confusion,
        }


def summarize(
    tally: RegionTally, categories: Categories, weights: str, *, random_weights: bool = False
) -> Classification:
    """Accuracies from counts.

    Args:
        tally: The counts of all photos.
        categories: Of the classes.
        weights: Where the model's weights are from.
        random_weights: Whether they, or a teacher's behind them, began as random ones.
    """
    thing = categories.thing_flags()
    called = tally.masks.called.sum(0)
    of_stuff = called[~thing]
    boxes1, boxes5, boxes = _hits(tally.boxes)
    masks1, masks5, masks = _hits(tally.masks)
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
        skipped=tally.skipped,
        vanished=int(called[:, -1].sum()),
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
        confusion=called,
        weights=weights,
        random_weights=random_weights,
    )


def _hits(tally: RegionCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(3, D) each, by size and class: regions called right, right among five, and all of them."""
    return np.diagonal(tally.called, axis1=1, axis2=2), tally.top5, tally.called.sum(2)


def _accuracy(hits: np.ndarray, regions: np.ndarray, of: np.ndarray) -> float | None:
    """(sizes, D) hits among regions -> percent, the mean over the classes `of` (D,) that have any."""
    return _mean(_percent(h, n) for h, n in zip(hits.sum(0)[of], regions.sum(0)[of], strict=True))


def _percent(hits: int, of: int) -> float | None:
    return float(100 * hits / of) if of else None


def _mean(values: Iterable[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None
