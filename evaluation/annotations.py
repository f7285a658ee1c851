"""A panoptic annotation file, every part of it checked before the first photo is read."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from densecli.core.documents import parse_foreign
from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain
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
    try:
        document = parse_foreign(path.read_bytes())
    except OSError as error:
        raise DenseCLIError(f"Could not read {path}: {error.strerror}.", hint="Check --data.") from error
    except ValueError as error:
        raise DenseCLIError(f"{path} is not a panoptic annotation file: {error}.", hint=HINT) from error
    images, annotations, entries = (_objects(path, document, key) for key in _KEYS)
    indices, matched_by = _matched(path, entries, categories)
    files = {}
    for place, image in enumerate(images):
        if not isinstance(image.get("id"), int | str):
            raise _wrong(path, f"images[{place}] has no id")
        files[image["id"]] = _name(path, f"images[{place}]", image)
    photos: dict[int | str, tuple[str, int, dict[str, Any]]] = {}
    for place, annotation in enumerate(annotations):
        key: Any = annotation.get("image_id")
        if not isinstance(key, int | str) or key not in files:
            raise _wrong(path, f"annotations[{place}] has the image_id {_shown(key)}, which no image has")
        if not isinstance(annotation.get("segments_info"), list):
            raise _no_segments(path, place, annotation)
        if key in photos:
            raise _wrong(path, f"the image {_shown(key)} is annotated twice")
        photos[key] = (files[key], place, annotation)
    things = categories.thing_flags()
    chosen = sorted(photos.values(), key=lambda photo: photo[0])[:limit]
    found = []
    for name, place, annotation in chosen:
        png = _name(path, f"annotations[{place}]", annotation)
        segments = _segments(path, png, annotation["segments_info"], indices, things)
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


_KEYS = ("images", "annotations", "categories")


def _objects(path: Path, document: Any, key: str) -> list[dict[str, Any]]:
    entries = document.get(key) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _wrong(path, f"it has no list of {key}")
    return entries


def _matched(
    path: Path, entries: Sequence[dict[str, Any]], categories: Categories
) -> tuple[dict[int, int], str]:
    for place, entry in enumerate(entries):
        if not _is_int(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise _wrong(path, f"categories[{place}] has no id that is a whole number, or no name")
    return match_categories(entries, categories)


def _segments(
    path: Path, png: str, infos: Sequence[Any], indices: Mapping[int, int], things: np.ndarray
) -> tuple[SegmentInfo, ...]:
    segments = {}
    seen = set()
    for place, info in enumerate(infos):
        which = f"the segment {place} of {plain(png)}"
        if not isinstance(info, dict) or not _is_int(info.get("id")):
            raise _wrong(path, f"{which} has no id that is a whole number")
        which = f"the segment {info['id']} of {plain(png)}"
        if info["id"] in seen:
            raise _wrong(path, f"{which} is there twice")
        seen.add(info["id"])
        category: Any = info.get("category_id")
        if not _is_int(category) or category not in indices:
            known = f"which none of its {len(indices)} categories has"
            raise _wrong(path, f"{which} has the category_id {_shown(category)}, {known}")
        thing = bool(things[indices[category]])
        box = _box(path, which, info.get("bbox")) if thing else None
        segments[info["id"]] = SegmentInfo(
            id=info["id"], category=indices[category], box=box, crowd=bool(info.get("iscrowd"))
        )
    return tuple(segments.values())


def _box(path: Path, which: str, bbox: Any) -> np.ndarray:
    """The box of a thing: ADE20K's is of the whole object, the PNG has only what was not painted over."""
    numbers: list[Any] = bbox if isinstance(bbox, list) and len(bbox) == 4 else [None]
    if not all(_is_number(value) for value in numbers) or min(numbers[2:]) < 0:
        raise _wrong(path, f"{which} has the bbox {_shown(bbox)}, not x, y, width and height in pixels")
    x, y, width, height = numbers
    return np.array([x, y, x + width, y + height], np.float32)


def _name(path: Path, which: str, entry: Mapping[str, Any]) -> str:
    """The file name of an image or annotation, which lies below its folder."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise _wrong(path, f"{which} has no file_name")
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise _wrong(path, f"{which} has the file_name {plain(name)}, which leads out of its folder")
    return name


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


_MOST = 1e9


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return "NaN" if isinstance(value, float) and math.isnan(value) else plain(repr(value), 60)


def _no_segments(path: Path, place: int, annotation: Mapping[str, Any]) -> DenseCLIError:
    if "bbox" in annotation or "segmentation" in annotation:
        return DenseCLIError(
            f"{path} is an annotation file of instances, not a panoptic one: annotations[{place}] is an "
            "object, not a photo with its segments_info.",
            hint="Take COCO's panoptic annotations (panoptic_annotations_trainval2017.zip).",
        )
    return _wrong(path, f"annotations[{place}] has no list of segments_info")


def _wrong(path: Path, trouble: str) -> DenseCLIError:
    return DenseCLIError(f"{path} is not a panoptic annotation file: {trouble}.", hint=HINT)
