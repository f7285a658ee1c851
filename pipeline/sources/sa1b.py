"""SA-1B as released: tars with sa_N.jpg and sa_N.json, read in place, or the extracted folders."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from densecli.core import fs
from densecli.core.documents import parse
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry, find
from densecli.core.passed_over import PassedOver
from densecli.core.pictures import MAX_PIXELS, PIXEL_BYTES
from densecli.pipeline.sources.base import (
    Decoded,
    Item,
    Source,
    SourceRequest,
    Span,
    Unreadable,
    no_folder,
    no_photo,
)
from densecli.pipeline.sources.photos import decode, read
from densecli.pipeline.sources.tars import Place, Row, Scanned, table
from densecli.pipeline.sources.volumes import Listing, Volume, list_volumes, tar_volumes
from densecli.shards.datasets import DATASETS, Dataset
from densecli.shards.geometry import Canvas

_PHOTO = re.compile(r"sa_[0-9]+\.jpg")
_MASKS = re.compile(r"sa_[0-9]+\.json")
_LAYOUT = "The layout is ROOT/sa_000000.tar, ..., or the extracted folders, with sa_N.jpg and sa_N.json."


@dataclass(frozen=True, kw_only=True)
class Sa1bLoader:
    """Loads a photo with its masks. EXIF orientation is not applied: masks refer to the pixels as stored."""

    root: str
    max_pixels: int = MAX_PIXELS

    def __call__(self, item: Item, canvas: Canvas) -> Decoded:
        """Loads a photo; one without annotations has an empty list of masks. Raises Unreadable."""
        max_bytes = PIXEL_BYTES * self.max_pixels
        data = read(self.root, item.photo or Span(item.ref), max_bytes)
        decoded = decode(data, upright=False, canvas=canvas, max_pixels=self.max_pixels)
        masks = parse_masks(read(self.root, item.masks, max_bytes)) if item.masks else []
        return decoded._replace(masks=masks)


def parse_masks(data: bytes) -> list[list[float]]:
    """The masks in a sa_N.json, as in `Decoded.masks`. Raises Unreadable."""
    try:
        rows = [_row(annotation) for annotation in parse(data)["annotations"]]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise Unreadable("bad-annotations") from error
    return rows


def _row(annotation: Any) -> list[float]:
    """x, y, w, h, predicted_iou and stability_score. Raises ValueError, KeyError or TypeError."""
    box = annotation["bbox"]
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError("a box is no list of four numbers")
    numbers = [*box, annotation["predicted_iou"], annotation["stability_score"]]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise ValueError("a mask holds something that is no number")
    row = [float(n) for n in numbers]
    if not all(map(math.isfinite, row)) or min(row[2:4]) < 0:
        raise ValueError("a mask has a number out of range")
    return row


def sa1b_source(request: SourceRequest) -> Source:
    """Lists the photos of all tars, each in the tar's own order, then those of extracted folders.

    Folders with the same name as a tar are skipped.

    Args:
        request: `data` is the root folder; `split` names a subfolder to read alone.

    Raises:
        DenseCLIError: There is no photo, or the same photo is found more than once.
    """
    limit, index = request.limit, request.index
    folder = fs.join(request.data, request.split) if request.split else request.data
    passed = PassedOver()
    entries = {} if request.tars is not None else find(folder, "*", passed=passed, within=request.data)
    if not entries and not fs.exists(folder):
        raise no_folder(folder, "sa1b")
    tars = _tars(entries) if request.tars is None else dict(request.tars)
    volumes: list[Volume] = []
    if tars:
        volumes += tar_volumes(folder, tars, choose_photos, request)
    left = None if limit is None else limit - sum(len(volume.photos) for volume in volumes)
    if left is None or left > 0:
        folders = {name: e for name, e in entries.items() if e.is_folder and f"{name}.tar" not in tars}
        volumes += list_volumes(
            folder,
            folders,
            lambda name: _extracted(fs.join(folder, name), request.data),
            "folders listed",
            limit=left,
            index=index,
        )
        files = {name: e for name, e in entries.items() if not e.is_folder and name not in tars}
        volumes.append(Volume("", _photos(files, passed), PassedOver()))
    for volume in volumes:
        passed.update(volume.passed, volume.name)
    volumes = [volume for volume in volumes if len(volume.photos)]
    if not volumes:
        raise no_photo(f"{folder} holds no photo of SA-1B", _LAYOUT, passed)
    _refuse_twins(volumes)
    listing = Listing(volumes, limit)
    return Source(
        name="sa1b",
        split=request.split,
        digest=listing.digest,
        items=listing,
        load=Sa1bLoader(root=folder, max_pixels=request.max_pixels),
        has_masks=any(volume.photos["masks_size"].any() for volume in volumes),
        blocks=listing.blocks,
        index_bytes=listing.index_bytes,
        passed=passed,
    )


def find_tars(request: SourceRequest) -> dict[str, Entry]:
    """The tars of a request by their name. Raises DenseCLIError if there is none."""
    folder = fs.join(request.data, request.split) if request.split else request.data
    passed = PassedOver()
    tars = _tars(find(folder, "*", passed=passed, within=request.data))
    if not tars:
        raise no_photo(f"{folder} holds no tar of SA-1B", _LAYOUT, passed)
    return tars


def _tars(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    return {
        name: entry
        for name, entry in entries.items()
        if re.fullmatch(r"sa_[0-9]+\.tar", name) and not entry.is_folder
    }


def choose_photos(members: Mapping[str, Place], passed: PassedOver) -> list[Row]:
    """The photos among the members of a tar, in its order, with their masks."""
    rows = []
    for name, place in members.items():
        if _PHOTO.fullmatch(name):
            rows.append((name.encode(), *place, *members.get(f"{name.removesuffix('jpg')}json", (0, 0))))
        elif not _MASKS.fullmatch(name):
            passed.add("not named as SA-1B's files", name)
    return rows


def _extracted(folder: str, root: str) -> Scanned:
    """The photos in an extracted folder."""
    passed = PassedOver()
    files = find(folder, "*", passed=passed, within=root)
    return _photos({name: entry for name, entry in files.items() if not entry.is_folder}, passed), passed


def _photos(files: Mapping[str, Entry], passed: PassedOver) -> np.ndarray:
    for name in files:
        if not _PHOTO.fullmatch(name) and not _MASKS.fullmatch(name):
            passed.add("not named as SA-1B's files", name)
    photos = sorted(filter(_PHOTO.fullmatch, files), key=_number)
    masks = [files.get(photo.removesuffix("jpg") + "json") for photo in photos]
    return table(
        [
            (photo.encode(), 0, files[photo].size, 0, entry.size if entry else 0)
            for photo, entry in zip(photos, masks, strict=True)
        ]
    )


def _number(name: str | bytes) -> int:
    return int(name[len("sa_") : -len(".jpg")])


def _refuse_twins(volumes: list[Volume]) -> None:
    """Raises DenseCLIError if two photos have the same number, which is their key."""
    numbers = np.concatenate(
        [np.array([_number(name) for name in volume.photos["name"].tolist()]) for volume in volumes]
    )
    numbers.sort()
    twins = numbers[1:][numbers[1:] == numbers[:-1]]
    if len(twins):
        raise DenseCLIError(
            f"{len(twins)} photos exist more than once, the first sa_{twins[0]}.jpg.",
            hint="Move one copy of the tar or folder away.",
        )


DATASETS.add(
    "sa1b",
    Dataset(source=sa1b_source, tars=find_tars),
    help="SA-1B as released: tars or the extracted folders, with masks.",
)
