"""SA-1B as released: tars with sa_N.jpg and sa_N.json, read in place, or the extracted folders."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from densecli.core import fs
from densecli.core.documents import parse
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry, find
from densecli.core.passed_over import PassedOver
from densecli.core.pictures import MAX_PIXELS, PIXEL_BYTES
from densecli.pipeline.sources.base import (
    Item,
    Source,
    SourceRequest,
    Unreadable,
    no_folder,
    no_photo,
)
from densecli.pipeline.sources.photos import PhotoLoader, read
from densecli.pipeline.sources.tars import Place, Row, Scanned, table
from densecli.pipeline.sources.volumes import Listing, Volume, list_volumes, tar_volumes
from densecli.shards.datasets import DATASETS, Dataset
from densecli.shards.segmentation import PhotoMasks, annotations_of

_PHOTO = re.compile(r"sa_[0-9]+\.jpg")
_MASKS = re.compile(r"sa_[0-9]+\.json")
_LAYOUT = "The layout is ROOT/sa_000000.tar, ..., or the extracted folders, with sa_N.jpg and sa_N.json."


@dataclass(frozen=True, kw_only=True)
class Sa1bMasks:
    """Reads the sa_N.json of a photo."""

    root: str
    max_pixels: int = MAX_PIXELS

    def __call__(self, item: Item) -> PhotoMasks:
        """The masks of a photo; none if it has no annotations. Raises Unreadable."""
        if not item.masks:
            return PhotoMasks()
        try:
            document = parse(read(self.root, item.masks, PIXEL_BYTES * self.max_pixels))
            return annotations_of(document.get("annotations") if isinstance(document, dict) else None)
        except ValueError as error:
            raise Unreadable("bad-annotations") from error


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
    annotated = any(volume.photos["masks_size"].any() for volume in volumes)
    return Source(
        name="sa1b",
        split=request.split,
        digest=listing.digest,
        items=listing,
        # EXIF orientation is not applied: masks refer to the pixels as stored.
        load=PhotoLoader(root=folder, upright=False, max_pixels=request.max_pixels),
        masks=Sa1bMasks(root=folder, max_pixels=request.max_pixels) if annotated else None,
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
