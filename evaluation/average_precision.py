"""Average precision of ranked boxes, computed by pycocotools' COCOeval, a category at a time.

Categories do not depend on each other in COCOeval, and a photo without an annotated or a ranked box of a
category adds nothing to it. So each category is evaluated on its own photos: LVIS has 24 million pairs of
photo and category, and COCOeval keeps an object for each.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from densecli.evaluation.instances import InstancePhoto


@dataclass(frozen=True, kw_only=True)
class RankedBoxes:
    """The ranked boxes of a photo, best first.

    Attributes:
        boxes: (N, 4) float64 xyxy in pixels.
        categories: (N,) indices into the categories.
        scores: (N,) the higher the better.
    """

    boxes: np.ndarray
    categories: np.ndarray
    scores: np.ndarray


def average_precisions(
    photos: Sequence[InstancePhoto], ranked: Sequence[RankedBoxes], categories: int
) -> np.ndarray:
    """Computes AP for every category and IoU.

    LVIS's rules hold where photos say what they were checked for: boxes of other categories do not count,
    and an unmatched box of a category that is annotated in part is not wrong (Gupta et al., CVPR 2019).

    Args:
        photos: Annotated photos.
        ranked: The ranked boxes of each.
        categories: Number of categories, D.

    Returns:
        (D, 10) float64 in 0..1 at IoU 0.50, 0.55, ... 0.95; NaN for a category without an annotated box.
    """
    truth, found = _by_category(photos, categories), _by_category(ranked, categories)
    aps = np.full((categories, 10), np.nan)
    for category in range(categories):
        if not truth[category]:
            continue
        annotated = [
            _entry(i, category, photos[i].boxes[k]) | {"iscrowd": int(photos[i].crowds[k])}
            for i, k in truth[category]
        ]
        guessed = [
            _entry(i, category, ranked[i].boxes[k]) | {"score": float(ranked[i].scores[k]), "iscrowd": 0}
            for i, k in found[category]
            if (checked := photos[i].checked) is None or category in checked
        ]
        partial = {i for i, photo in enumerate(photos) if category in photo.partial}
        precision = _precision(annotated, guessed, category, partial)
        if (precision >= 0).all():
            aps[category] = precision.mean(1)
    return aps


def _by_category(
    photos: Sequence[InstancePhoto] | Sequence[RankedBoxes], categories: int
) -> list[list[tuple[int, int]]]:
    """For each category the places (photo, box) of its boxes.

    Only one category's boxes are objects of pycocotools at a time: all of LVIS's would take gigabytes.
    """
    of_boxes = np.concatenate([photo.categories for photo in photos])
    counts = [len(photo.categories) for photo in photos]
    places = np.stack(
        [np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(n) for n in counts])], 1
    )
    order = np.argsort(of_boxes, kind="stable")
    ends = np.searchsorted(of_boxes[order], np.arange(1, categories))
    return [list(map(tuple, part.tolist())) for part in np.split(places[order], ends)]


def _precision(
    truth: list[dict[str, Any]], found: list[dict[str, Any]], category: int, partial: set[int]
) -> np.ndarray:
    """(10, 101) precision of a category at each IoU and recall; -1 where all annotated boxes are crowds."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(truth, category), _coco(found, category), "bbox")
        # A photo's boxes are as many as they should be already.
        evaluation.params.maxDets = [max(1, len(found))]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.imgIds = sorted({entry["image_id"] for entry in (*truth, *found)})
        evaluation.evaluate()
        for each in evaluation.evalImgs:
            if each and each["image_id"] in partial:
                each["dtIgnore"] |= each["dtMatches"] == 0
        evaluation.accumulate()
    precision: np.ndarray = evaluation.eval["precision"][:, :, 0, 0, 0]
    return precision


def _entry(photo: int, category: int, box: np.ndarray) -> dict[str, Any]:
    x, y, right, bottom = map(float, box)
    size = [right - x, bottom - y]
    return {
        "image_id": photo,
        "category_id": int(category),
        "bbox": [x, y, *size],
        "area": size[0] * size[1],
    }


def _coco(entries: list[dict[str, Any]], category: int) -> COCO:
    """The entries as pycocotools has them. It takes the id 0 for no match."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in sorted({entry["image_id"] for entry in entries})],
        "annotations": [entry | {"id": i + 1} for i, entry in enumerate(entries)],
        "categories": [{"id": category}],
    }
    coco.createIndex()
    return coco
