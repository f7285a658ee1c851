"""Files of proposed boxes: read with every annotation checked, and compared with the photos they are for."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from densecli.core import fs
from densecli.core.documents import parse_foreign
from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain, readable
from densecli.shards.annotation_values import OTHER_PHOTOS, Malformed, box_of, is_number, shown

HINT = (
    "Give --proposals a COCO-style json: `images` with id and file_name, and `annotations` with image_id, "
    "bbox (x, y, width, height in pixels) and perhaps score."
)


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """A file of boxes.

    Attributes:
        file: Its path or URL.
        names: The photos that it names.
        boxes: x, y, width, height in pixels and score of every box, by file name of the photo.
        duplicates: How many boxes are exactly as another one of their photo.
        sizes: Width and height of photos of which the file tells, by file name.
    """

    file: str
    names: Collection[str]
    boxes: Mapping[str, list[list[float]]] = field(repr=False)
    duplicates: int
    sizes: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    def left_out(self, areas: tuple[int, int]) -> int:
        """How many boxes have an area outside of so many square pixels, cut at the edges that are known."""
        return sum(
            not areas[0] <= _area(box, self.sizes.get(name)) <= areas[1]
            for name, boxes in self.boxes.items()
            for box in boxes
        )

    @property
    def count(self) -> int:
        """How many boxes there are."""
        return sum(map(len, self.boxes.values()))


def _area(box: list[float], size: tuple[float, float] | None) -> float:
    x, y, width, height = box[:4]
    if size is None:
        return width * height
    return max(0.0, min(x + width, size[0]) - max(x, 0.0)) * max(0.0, min(y + height, size[1]) - max(y, 0.0))


def read_proposals(file: str) -> Proposals:
    """Reads a file of boxes.

    Raises:
        DenseCLIError: It is missing, damaged or of another layout, an annotation is malformed, or the boxes
            are relative to the size of their photos.
    """
    try:
        document = parse_foreign(fs.read_bytes(file))
    except FileNotFoundError as error:
        raise DenseCLIError(f"There is no file {file}.", hint=HINT) from error
    except OSError as error:
        raise DenseCLIError(
            f"The file of proposals {file} cannot be read: {error.strerror or error}.", hint=HINT
        ) from error
    except ValueError as error:
        raise DenseCLIError(f"The file of proposals {file} is damaged: {error}.", hint=HINT) from error
    images, annotations = (
        document.get(key) if isinstance(document, dict) else None for key in ("images", "annotations")
    )
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DenseCLIError(f"{file} does not have the layout of COCO's annotations.", hint=HINT)
    names = _names(file, images)
    boxes: dict[str, list[list[float]]] = {}
    for place, annotation in enumerate(annotations):
        name, row = _box(file, place, annotation, names)
        boxes.setdefault(name, []).append(row)
    _refuse_relative(file, boxes)
    duplicates = sum(len(rows) - len(set(map(tuple, rows))) for rows in boxes.values())
    sizes = {
        names[image["id"]]: (image["width"], image["height"])
        for image in images
        if all(is_number(image.get(side)) and image[side] > 0 for side in ("width", "height"))
    }
    return Proposals(file=file, names=list(names.values()), boxes=boxes, duplicates=duplicates, sizes=sizes)


def _names(file: str, images: list[Any]) -> dict[Any, str]:
    """The file name of each image by its id."""
    names: dict[Any, str] = {}
    for place, image in enumerate(images):
        if (
            not isinstance(image, dict)
            or not isinstance(image.get("id"), int | str)
            or not isinstance(image.get("file_name"), str)
        ):
            which = f"{file} does not have the layout of COCO's annotations: images[{place}]"
            raise DenseCLIError(f"{which} has no id or file_name.", hint=HINT)
        if names.setdefault(image["id"], image["file_name"]) != image["file_name"]:
            raise DenseCLIError(
                f"{file}: two images have the id {image['id']}, {plain(names[image['id']])} and "
                f"{plain(image['file_name'])}.",
                hint="Give every image an id of its own.",
            )
    return names


def _box(file: str, place: int, annotation: Any, names: Mapping[Any, str]) -> tuple[str, list[float]]:
    """The photo of an annotation, and x, y, width, height and score. Raises DenseCLIError."""
    about = annotation if isinstance(annotation, dict) else {}
    image, score = about.get("image_id"), about.get("score", 0)
    hint, photo = HINT, ""
    try:
        if not isinstance(image, int | str) or image not in names:
            raise Malformed(f"has the image_id {shown(image)}, which none of the {len(names)} images has")
        hint, photo = "Correct the annotation, or take it out.", f", of the photo {plain(names[image])},"
        box = box_of(about.get("bbox"))
        hint = "Correct the annotation, or leave its score out."
        if not is_number(score):
            raise Malformed(f"has the score {shown(score)}, not a number")
    except Malformed as error:
        which = f"annotations[{place}]" + (f" (id {plain(str(about['id']))})" if "id" in about else "")
        raise DenseCLIError(
            f"{file} does not have the layout of COCO's annotations: {which}{photo} {error}.", hint=hint
        ) from None
    return names[image], [*box, float(score)]


def _refuse_relative(file: str, boxes: Mapping[str, list[list[float]]]) -> None:
    """Raises DenseCLIError if all boxes are within 0..1, some with an area: parts of width and height."""
    rows = [row for of_photo in boxes.values() for row in of_photo]
    small = all(0 <= value <= 1 for row in rows for value in row[:4])
    if small and any(row[2] and row[3] for row in rows):
        raise DenseCLIError(
            f"The boxes of {file} are relative: all {len(rows)} have numbers from 0 to 1.",
            hint="Boxes are in pixels: multiply x and width by the photo's width, the others by its height.",
        )


def compare_names(
    proposals: Proposals, refs: Iterable[str], elsewhere: Callable[[Collection[str]], str]
) -> dict[str, int]:
    """Compares the photos of a file of boxes with those listed.

    Args:
        proposals: The file.
        refs: What the listed photos are called in a store, `source` of their json.
        elsewhere: Says where else photos of these names are, if not even base names match.

    Returns:
        How many `photos` are listed, how many of them are `matched` and have boxes, and how many names of the
        file are `unmatched`.

    Raises:
        DenseCLIError: None matches; it shows names of both sides, and what would make them match.
    """
    listed = {readable(ref) for ref in refs}
    matched = sum(name in listed for name in proposals.boxes)
    if proposals.boxes and not matched:
        raise _no_match(proposals, listed, elsewhere)
    return {
        "photos": len(listed),
        "matched": matched,
        "unmatched": sum(name not in listed for name in set(proposals.names)),
    }


def _no_match(
    proposals: Proposals, listed: Collection[str], elsewhere: Callable[[Collection[str]], str]
) -> DenseCLIError:
    names = list(proposals.boxes)
    first = (", ".join(plain(name) for name in list(side)[:2]) for side in (names, sorted(listed)))
    theirs, ours = first
    return DenseCLIError(
        f"No photo is called as in the proposals {proposals.file}: they have {theirs}, the listing {ours}.",
        hint=_remedy(proposals.file, names, listed) or elsewhere(names) or OTHER_PHOTOS,
    )


def _remedy(file: str, names: Collection[str], listed: Collection[str]) -> str:
    """A hint that makes the names match, after trying it; empty if not even base names match."""
    by_base: dict[str, str] = {}
    for ref in listed:
        by_base.setdefault(base_name(ref), ref)
    pairs = [(name, by_base[base_name(name)]) for name in names if base_name(name) in by_base]
    if pairs:
        name, ref = pairs[0]
        agreement = f"their base names match: {len(pairs)} of {len(names)}"
        if prefix := _prefix(pairs):
            # A command that works as it is printed.
            sed = f" (sed -i 's|{prefix}||g' {file})" if re.fullmatch(r"[\w./:-]+", prefix) else ""
            return f"Leave {plain(prefix)} out of each file_name{sed}; {agreement}."
        if ref.endswith(f"/{name}"):
            return f"Write the folder into each file_name, such as {plain(ref)}; {agreement}."
        return (
            f"Write each file_name as the photo is called, {plain(ref)} and not {plain(name)}; {agreement}."
        )
    stems = {base.rpartition(".")[0].lower(): ref for base, ref in by_base.items()}
    for name in names:
        if ref := stems.get(base_name(name).rpartition(".")[0].lower(), ""):
            return f"Only the extension or its case differs: write {plain(ref)} and not {plain(name)}."
    return ""


def _prefix(pairs: Collection[tuple[str, str]]) -> str:
    """The prefix that all names have before the photo's own; empty if they differ."""
    prefixes = {name.removesuffix(ref) if name.endswith(ref) else "" for name, ref in pairs}
    return prefixes.pop() if len(prefixes) == 1 else ""


def base_name(name: str) -> str:
    """The last part of a path or address."""
    path = unquote(urlsplit(name).path) if re.match(r"[a-z][a-z0-9+.-]*://", name) else name
    return path.replace("\\", "/").rpartition("/")[2]
