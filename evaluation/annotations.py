"""A panoptic annotation file, every part of it checked before the first photo is read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain
from densecli.evaluation.annotation_file import AnnotationFile, is_int, shown
from densecli.models.categories import Categories

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
    images, annotations = file.objects("images"), file.objects("annotations")
    indices, matched_by = match_categories(file.categories(), categories)
    files = {}
    for place, image in enumerate(images):
        if not isinstance(image.get("id"), int | str):
            raise file.wrong(f"images[{place}] has no id")
        files[image["id"]] = file.file_name(f"images[{place}]", image)
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
        png = file.file_name(f"annotations[{place}]", annotation)
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
    segments = {}
    seen = set()
    for place, info in enumerate(infos):
        which = f"the segment {place} of {plain(png)}"
        if not isinstance(info, dict) or not is_int(info.get("id")):
            raise file.wrong(f"{which} has no id that is a whole number")
        which = f"the segment {info['id']} of {plain(png)}"
        if info["id"] in seen:
            raise file.wrong(f"{which} is there twice")
        seen.add(info["id"])
        category: Any = info.get("category_id")
        if not is_int(category) or category not in indices:
            known = f"which none of its {len(indices)} categories has"
            raise file.wrong(f"{which} has the category_id {shown(category)}, {known}")
        thing = bool(things[indices[category]])
        # ADE20K's box is of the whole object, the PNG has only what was not painted over.
        box = file.box(which, info.get("bbox")).astype(np.float32) if thing else None
        segments[info["id"]] = SegmentInfo(
            id=info["id"], category=indices[category], box=box, crowd=file.crowd(which, info)
        )
    return tuple(segments.values())


def _no_segments(file: AnnotationFile, place: int, annotation: Mapping[str, Any]) -> DenseCLIError:
    if "bbox" in annotation or "segmentation" in annotation:
        return DenseCLIError(
            f"{file.path} is an annotation file of instances, not a panoptic one: annotations[{place}] is an "
            "object, not a photo with its segments_info.",
            hint="Take COCO's panoptic annotations (panoptic_annotations_trainval2017.zip), or measure its "
            "boxes with --task detection.",
        )
    return file.wrong(f"annotations[{place}] has no list of segments_info")
