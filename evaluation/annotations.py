"""A panoptic annotation file, every part of it checked before the first photo is read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain
from densecli.evaluation.annotation_file import (
    AnnotationFile,
    category_of,
    corners_of,
    file_name_of,
    is_crowd,
)
from densecli.models.categories import Categories
from densecli.shards.annotation_values import Malformed, is_int, shown

HINT = (
    "It must hold images (id, file_name), annotations (image_id, file_name, segments_info) and categories "
    "(id, name), as COCO's panoptic_val2017.json does."
)


@dataclass(frozen=True, kw_only=True)
class SegmentInfo:
    """What the file says of a segment.

    Attributes:
        id: Its value in the PNG.
        category: Index into the category set.
        box: (4,) float32 xyxy in pixels of the photo; None for stuff.
        crowd: Whether it is a crowd, many things in one segment.
    """

    id: int
    category: int
    box: np.ndarray | None
    crowd: bool = False


@dataclass(frozen=True, kw_only=True)
class PhotoAnnotation:
    """What the file says of a photo.

    Attributes:
        photo: Its path below the folder of photos.
        png: Path of its PNG below the folder of PNGs.
        segments: In the order of the file.
    """

    photo: str
    png: str
    segments: tuple[SegmentInfo, ...]


def read_annotations(
    path: Path, categories: Categories, limit: int | None = None
) -> tuple[list[PhotoAnnotation], str]:
    """Reads a panoptic annotation file.

    Args:
        path: Of the file.
        categories: The category set that its categories are matched to.
        limit: Number of photos, the first ones by file name; None for all. Others are not checked.

    Returns:
        The photos, sorted by file name, and how categories were matched; see `match_categories`.

    Raises:
        DenseCLIError: The file has another layout, or one of its parts is malformed.
    """
    file = AnnotationFile.read(path, "a panoptic annotation file", HINT)
    images, annotations = file.images(), file.objects("annotations")
    indices, matched_by = match_categories(file.categories(), categories)
    files = {}
    for place, image in enumerate(images):
        try:
            files[image["id"]] = file_name_of(image)
        except Malformed as error:
            raise file.wrong(f"images[{place}] {error}") from None
    photos: dict[int | str, tuple[str, int, dict[str, Any]]] = {}
    for place, annotation in enumerate(annotations):
        key: Any = annotation.get("image_id")
        if not isinstance(key, int | str) or key not in files:
            raise file.wrong(f"annotations[{place}] has the image_id {shown(key)}, which no image has")
        if not isinstance(annotation.get("segments_info"), list):
            raise _no_segments(file, place, annotation)
        if key in photos:
            raise file.wrong(f"the image {shown(key)} is annotated twice")
        photos[key] = (files[key], place, annotation)
    things = categories.thing_flags()
    chosen = sorted(photos.values(), key=lambda photo: photo[0])[:limit]
    found = []
    for name, place, annotation in chosen:
        try:
            png = file_name_of(annotation)
        except Malformed as error:
            raise file.wrong(f"annotations[{place}] {error}") from None
        segments = _segments(file, png, annotation["segments_info"], indices, things)
        found.append(PhotoAnnotation(photo=name, png=png, segments=segments))
    return found, matched_by


def canonical(name: str) -> str:
    """A category name for comparison: case, spacing, `_` and COCO-panoptic's `-merged` do not count."""
    return " ".join(name.casefold().replace("_", " ").split()).removesuffix("-merged")


def match_categories(
    entries: Sequence[Mapping[str, Any]], categories: Categories
) -> tuple[dict[int, int], str]:
    """Matches the categories of a panoptic annotation file to a category set.

    They are matched by name (`canonical`) if every name is found. Otherwise they are matched by the order of
    their ids, as in the released code of CLIPSelf, if there are as many as in the set.

    Args:
        entries: The file's `categories`.
        categories: The category set.

    Returns:
        Index into the set by id in the file, and how they were matched: "name" or "order".

    Raises:
        DenseCLIError: They cannot be matched; the message lists the unknown names.
    """
    forms = [canonical(name) for name in categories.names]
    # A name that the set holds twice names no class.
    count = Counter(forms)
    index = {form: i for i, form in enumerate(forms) if count[form] == 1}
    unmatched = [entry["name"] for entry in entries if canonical(entry["name"]) not in index]
    if not unmatched:
        return {entry["id"]: index[canonical(entry["name"])] for entry in entries}, "name"
    if len(entries) == len(categories.names):
        return {id: i for i, id in enumerate(sorted(entry["id"] for entry in entries))}, "order"
    raise DenseCLIError(
        f"{len(unmatched)} of {len(entries)} annotated categories are not in {categories.name}"
        f" ({len(categories.names)} names): {', '.join(unmatched)}.",
        hint="Give --categories the set that the annotations were made with (COCO: 133, ADE20K: ade150).",
    )


def _segments(
    file: AnnotationFile, png: str, infos: Sequence[Any], indices: Mapping[int, int], things: np.ndarray
) -> tuple[SegmentInfo, ...]:
    segments: dict[int, SegmentInfo] = {}
    for place, info in enumerate(infos):
        if not isinstance(info, dict) or not is_int(info.get("id")):
            raise file.wrong(f"the segment {place} of {plain(png)} has no id that is a whole number")
        try:
            if info["id"] in segments:
                raise Malformed("is there twice")
            segments[info["id"]] = _segment(info, indices, things)
        except Malformed as error:
            raise file.wrong(f"the segment {info['id']} of {plain(png)} {error}") from None
    return tuple(segments.values())


def _segment(info: Mapping[str, Any], indices: Mapping[int, int], things: np.ndarray) -> SegmentInfo:
    category = indices[category_of(info, indices)]
    # ADE20K's box is of the whole object, the PNG has only what was not painted over.
    box = corners_of(info).astype(np.float32) if things[category] else None
    return SegmentInfo(id=info["id"], category=category, box=box, crowd=is_crowd(info))


def _no_segments(file: AnnotationFile, place: int, annotation: Mapping[str, Any]) -> DenseCLIError:
    if "bbox" in annotation or "segmentation" in annotation:
        return DenseCLIError(
            f"{file.path} is an annotation file of instances, not a panoptic one: annotations[{place}] is an "
            "object, not a photo with its segments_info.",
            hint="Take COCO's panoptic annotations (panoptic_annotations_trainval2017.zip), or measure its "
            "boxes with --task detection.",
        )
    return file.wrong(f"annotations[{place}] has no list of segments_info")
