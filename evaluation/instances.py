"""Annotated boxes of photos, from an instances file of COCO's or LVIS's layout or from panoptic things.

COCO:   ROOT/annotations/instances_SPLIT.json, photos ROOT/SPLIT/.
LVIS:   ROOT/annotations/lvis_v1_SPLIT.json, photos where their coco_url says, such as ROOT/val2017/.
Panoptic annotations (see `evaluation.panoptic`): the boxes of their things.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
from densecli.evaluation.category_groups import CategoryGroups, group_categories
from densecli.evaluation.panoptic import find_layout
from densecli.shards.annotation_values import Malformed, is_int, shown

HINT = (
    "It must hold images (id, file_name), annotations (image_id, category_id, bbox) and categories "
    "(id, name), as COCO's instances_val2017.json and LVIS's lvis_v1_val.json do."
)
NAMES = ("instances", "lvis_v1")


@dataclass(frozen=True, kw_only=True)
class InstancePhoto:
    """The annotated boxes of a photo.

    Attributes:
        name: What the annotation file calls it; files of proposals name it so.
        path: Path of the file.
        size: Its (width, height) as annotated; None where the file does not say.
        boxes: (N, 4) float64 xyxy in pixels.
        categories: (N,) indices into the categories.
        crowds: (N,) whether each box is a crowd, in which detections neither count nor harm.
        checked: Indices of the categories that the photo was checked for (LVIS); None for all.
        partial: Indices of the categories of which not every object is annotated (LVIS).
    """

    name: str
    path: Path
    size: tuple[int, int] | None
    boxes: np.ndarray
    categories: np.ndarray
    crowds: np.ndarray
    checked: frozenset[int] | None = None
    partial: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The annotated boxes of a split.

    Attributes:
        file: The annotation file.
        categories: The categories that boxes are classified among.
        photos: Sorted by name.
        empty: Photos left out because they have no object of the categories, as OV-COCO leaves them out.
        without_area: Annotated boxes of these photos that are left out because they have no area.
    """

    file: Path
    categories: CategoryGroups
    photos: tuple[InstancePhoto, ...]
    empty: int
    without_area: int


def read_instances(
    root: Path,
    split: str,
    *,
    file: Path | None = None,
    novel: Sequence[str] = (),
    limit: int | None = None,
) -> Instances:
    """Reads the annotated boxes of a split.

    Args:
        root: Folder of the data set.
        split: Its split.
        file: The annotation file, by default the one where the layouts have it.
        novel: Names of the novel categories; see `group_categories`.
        limit: Number of photos, the first ones by name; None for all.

    Raises:
        DenseCLIError: There is no such file, it has another layout, or one of its parts is malformed.
    """
    path, folder = _find(root, split, file)
    option = "--instances" if file else "--data"
    document = AnnotationFile.read(path, "an annotation file of instances", HINT, option=option)
    images, entries = document.images(), document.categories()
    panoptic, objects = _objects(document, entries)
    groups = group_categories([e for e in entries if not panoptic or e.get("isthing")], novel)
    rows = _rows(document, images, objects, {entry["id"] for entry in entries})
    if all(0 <= value <= 1 for of_image in rows.values() for _, box, _ in of_image for value in box) and rows:
        raise document.wrong("its boxes are all within 0 to 1, where pixels are expected")
    index = {id: i for i, id in enumerate(groups.ids)}
    found: list[tuple[InstancePhoto, int]] = []
    empty = 0
    for place, image in enumerate(images):
        of_image = [(index[c], box, crowd) for c, box, crowd in rows.get(image["id"], []) if c in index]
        kept = [row for row in of_image if row[1][2] > row[1][0] and row[1][3] > row[1][1]]
        try:
            name, path_of_photo = _named(image, root, folder)
            checked, partial = _checked(image, index, kept) if groups.lvis else (None, frozenset[int]())
        except Malformed as error:
            raise document.wrong(f"images[{place}] {error}") from None
        if groups.name == "OV-COCO" and not kept:
            empty += 1
            continue
        photo = InstancePhoto(
            name=name,
            path=path_of_photo,
            size=_size(image),
            boxes=np.array([box for _, box, _ in kept], np.float64).reshape(-1, 4),
            categories=np.array([c for c, _, _ in kept], np.int64),
            crowds=np.array([crowd for _, _, crowd in kept], bool),
            checked=checked,
            partial=partial,
        )
        found.append((photo, len(of_image) - len(kept)))
    found = sorted(found, key=lambda each: each[0].name)[:limit]
    photos = tuple(photo for photo, _ in found)
    if not any(len(photo.boxes) for photo in photos):
        raise DenseCLIError(
            f"{path} annotates no box of these photos.", hint="Give another --split or --limit."
        )
    return Instances(
        file=path,
        categories=groups,
        photos=photos,
        empty=empty,
        without_area=sum(without_area for _, without_area in found),
    )


def _find(root: Path, split: str, file: Path | None) -> tuple[Path, Path]:
    """The annotation file of a split, and the folder of its photos."""
    if file:
        return file, root / split
    for name in NAMES:
        path = root / "annotations" / f"{name}_{split}.json"
        if path.is_file():
            return path, root / split
    try:
        layout = find_layout(root, split)
    except DenseCLIError:
        places = " or ".join(f"{name}_{split}.json" for name in (*NAMES, "panoptic"))
        raise DenseCLIError(
            f"There are no annotated boxes for split {split!r}: {root / 'annotations'} has no {places}.",
            hint="Give --data and --split of a data set in COCO's layout, or the file as --instances.",
        ) from None
    return layout.annotations, layout.photos


def _objects(
    document: AnnotationFile, entries: Sequence[Mapping[str, Any]]
) -> tuple[bool, Iterator[tuple[tuple[int, ...], Any, Mapping[str, Any]]]]:
    """Whether the file is a panoptic one, and place, image_id and content of each annotated object."""
    annotations = document.objects("annotations")
    if not any("segments_info" in annotation for annotation in annotations):
        return False, (((place,), each.get("image_id"), each) for place, each in enumerate(annotations))
    if not all("isthing" in entry for entry in entries):
        raise document.wrong("it does not say of every category whether it is a thing (isthing)")
    stuff = {entry["id"] for entry in entries if not entry["isthing"]}

    def things() -> Iterator[tuple[tuple[int, ...], Any, Mapping[str, Any]]]:
        for place, annotation in enumerate(annotations):
            infos = annotation.get("segments_info")
            if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
                raise document.wrong(f"annotations[{place}] has no list of segments_info")
            for number, info in enumerate(infos):
                if not is_int(info.get("category_id")) or info["category_id"] not in stuff:
                    yield (place, number), annotation.get("image_id"), info

    return True, things()


def _rows(
    document: AnnotationFile,
    images: Sequence[Mapping[str, Any]],
    objects: Iterable[tuple[tuple[int, ...], Any, Mapping[str, Any]]],
    categories: set[int],
) -> dict[Any, list[tuple[int, np.ndarray, bool]]]:
    """Category id, box and crowd flag of every object, by image id."""
    rows: dict[Any, list[tuple[int, np.ndarray, bool]]] = {}
    ids = {image["id"] for image in images}
    for place, image_id, entry in objects:
        try:
            if not isinstance(image_id, int | str) or image_id not in ids:
                raise Malformed(f"has the image_id {shown(image_id)}, which no image has")
            row = (category_of(entry, categories), corners_of(entry), is_crowd(entry))
        except Malformed as error:
            which = ".segments_info".join(f"[{number}]" for number in place)
            raise document.wrong(f"annotations{which} {error}") from None
        rows.setdefault(image_id, []).append(row)
    return rows


def _named(image: Mapping[str, Any], root: Path, folder: Path) -> tuple[str, Path]:
    """A photo's name and path. LVIS names it by its address alone, .../val2017/000000000139.jpg."""
    url = image.get("coco_url")
    if "file_name" not in image and isinstance(url, str):
        image = {"file_name": "/".join(urlsplit(url).path.split("/")[-2:])}
        folder = root
    name = file_name_of(image)
    return name, folder / name


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if is_int(width) and is_int(height) else None


def _checked(
    image: Mapping[str, Any], index: Mapping[int, int], rows: Sequence[tuple[int, np.ndarray, bool]]
) -> tuple[frozenset[int], frozenset[int]]:
    """The categories that an LVIS photo was checked for, and those of which it has more objects."""
    negative, partial = (
        _category_list(image, key, index) for key in ("neg_category_ids", "not_exhaustive_category_ids")
    )
    return negative | {category for category, _, _ in rows}, partial


def _category_list(image: Mapping[str, Any], key: str, index: Mapping[int, int]) -> frozenset[int]:
    ids = image.get(key)
    if not isinstance(ids, list) or not all(is_int(id) and id in index for id in ids):
        raise Malformed(f"has no list {key} of category ids")
    return frozenset(index[id] for id in ids)


def check_size(photo: InstancePhoto, size: tuple[int, int]) -> None:
    """Raises DenseCLIError if a photo has another size than its annotation says."""
    if photo.size and photo.size != size:
        (width, height), (w, h) = photo.size, size
        raise DenseCLIError(
            f"{plain(photo.name)} is {w}x{h} px, its annotation says {width}x{height}.",
            hint="Photos and boxes must come from the same release of the data set.",
        )
