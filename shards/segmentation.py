"""Masks in the files of COCO, SA-1B and strangers: polygons and run lengths, read strictly."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from densecli.shards.annotation_values import is_int, is_number
from densecli.shards.masks import MAX_SIDE, run_lengths

MAX_EDGES = 1 << 22
"""Largest total length of the edges of a mask's polygons, in pixels. A photo of 4,000 pixels has room for 500
lines each way; pycocotools takes about 70 bytes a pixel of them."""


class Malformed(ValueError):
    """What is wrong with a mask, in words that are counted."""


class Annotation(NamedTuple):
    """An annotated mask, not read yet.

    Attributes:
        segmentation: Polygons, or run lengths with their size.
        iou: The predicted IoU, of masks that a model has made; 1 for others.
        stability: The stability score, likewise.
    """

    segmentation: Any
    iou: float = 1.0
    stability: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PhotoMasks:
    """What is annotated of a photo.

    Attributes:
        annotations: Its masks.
        malformed: How many others there are, by what is wrong with them.
    """

    annotations: Sequence[Annotation] = ()
    malformed: Counter[str] = field(default_factory=Counter)


def annotation_of(entry: Any) -> Annotation:
    """The mask in an entry of `annotations`. Raises Malformed."""
    if not isinstance(entry, Mapping):
        raise Malformed("no object")
    scores = [entry.get(name, 1.0) for name in ("predicted_iou", "stability_score")]
    if not all(map(is_number, scores)):
        raise Malformed("a score that is no number")
    if entry.get("segmentation") in (None, []):
        raise Malformed("no segmentation")
    return Annotation(entry["segmentation"], *map(float, scores))


def annotations_of(entries: Any) -> PhotoMasks:
    """The masks in a list of `annotations` of one photo. Raises Malformed if it is no list."""
    if not isinstance(entries, list):
        raise Malformed("no list of annotations")
    found, malformed = [], Counter[str]()
    for entry in entries:
        try:
            found.append(annotation_of(entry))
        except Malformed as error:
            malformed[str(error)] += 1
    return PhotoMasks(annotations=found, malformed=malformed)


def lengths_of(segmentation: Any, width: int, height: int) -> np.ndarray:
    """Reads a mask of a photo of width x height pixels.

    Args:
        segmentation: A list of polygons (x, y, x, y, ... in pixels; what lies outside of the photo is moved
            to its edge), or `size` [height, width] and `counts`: run lengths as a list or compressed as text.
        width: Width of the photo.
        height: Height of the photo.

    Returns:
        (K,) int64 lengths of its runs, of pixels outside and inside in turn, down each column.

    Raises:
        Malformed: It is none, or that of a photo of another size. Nothing is decoded before this is known.
    """
    if isinstance(segmentation, list):
        return _of_polygons(segmentation, width, height)
    if not isinstance(segmentation, Mapping):
        raise Malformed("neither polygons nor run lengths")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(map(is_int, size)):
        raise Malformed("run lengths without a size")
    if size != [height, width]:
        raise Malformed("of another size than the photo")
    if isinstance(counts, str):
        return _of_text(counts.encode("utf-8", "replace"), width * height)
    if (
        isinstance(counts, list)
        and all(is_int(count) and count >= 0 for count in counts)
        and sum(counts) == width * height
    ):
        return np.array(counts, np.int64)
    raise Malformed("damaged run lengths")


def _of_text(text: bytes, pixels: int) -> np.ndarray:
    data = np.frombuffer(text, np.uint8)
    try:
        return run_lengths(data, np.array([len(data)]), pixels=pixels)[0]
    except ValueError:
        raise Malformed("damaged run lengths") from None


def _of_polygons(polygons: list[Any], width: int, height: int) -> np.ndarray:
    # Only a build reads polygons.
    from pycocotools import mask as coco_mask

    if not polygons or max(width, height) > MAX_SIDE:
        raise Malformed("a damaged polygon")
    within, length = [], 0.0
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise Malformed("a damaged polygon")
        if not all(map(is_number, polygon)):
            raise Malformed("a damaged polygon")
        # pycocotools walks along the edges: their length decides about its memory.
        points = np.array(polygon, np.float64).reshape(-1, 2).clip(0, [width, height])
        length += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
        if length > MAX_EDGES:
            raise Malformed("a polygon that fills its photo with edges")
        within.append(points.flatten().tolist())
    merged = coco_mask.merge(coco_mask.frPyObjects(within, height, width))
    return _of_text(merged["counts"], width * height)


def sampled(lengths: np.ndarray, width: int, height: int, to: tuple[int, int]) -> np.ndarray:
    """A mask at another size: a pixel belongs to it if the point in its middle does.

    Args:
        lengths: See `lengths_of`.
        width: Width that they are of.
        height: Height that they are of.
        to: Width and height of the result.

    Returns:
        (h, w) bool.
    """
    x = (2 * np.arange(to[0]) + 1) * width // (2 * to[0])
    y = (2 * np.arange(to[1]) + 1) * height // (2 * to[1])
    ends = np.cumsum(lengths)
    # Nothing is looked up outside of the columns that the mask reaches.
    inside = np.flatnonzero(lengths[1::2])
    found = np.zeros((to[0], to[1]), bool)
    if len(inside):
        first, last = ends[2 * inside[0]] // height, (ends[2 * inside[-1] + 1] - 1) // height
        columns = slice(*np.searchsorted(x, [first, last + 1]).tolist())
        places = x[columns, None] * height + y
        found[columns] = np.searchsorted(ends, places, side="right") % 2 == 1
    return found.T


def packed(bitmaps: Sequence[np.ndarray]) -> list[bytes]:
    """The compressed run lengths of bitmaps, (h, w) bool each."""
    # Only a build writes masks.
    from pycocotools import mask as coco_mask

    if not bitmaps:
        return []
    stacked = np.asfortranarray(np.stack(bitmaps, axis=-1).astype(np.uint8))
    return [encoded["counts"] for encoded in coco_mask.encode(stacked)]
