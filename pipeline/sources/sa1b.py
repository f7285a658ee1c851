"""SA-1B as released: tars with sa_N.jpg and sa_N.json, read in place, or the extracted folders."""

import json
import re
from dataclasses import dataclass

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.pictures import MAX_PIXELS
from densecli.pipeline.sources.base import Decoded, Item, Source, SourceRequest, Span, Unreadable, no_folder
from densecli.pipeline.sources.photos import decode, read
from densecli.pipeline.sources.volumes import Listing, Volume, list_volumes, table, tar_volumes
from densecli.shards.datasets import DATASETS, Dataset
from densecli.shards.geometry import Canvas

_PHOTO = re.compile(r"sa_\d+\.jpg")
_FILE = re.compile(r"sa_\d+\.(jpg|json)")
_LAYOUT = "The layout is ROOT/sa_000000.tar, ..., or the extracted folders, with sa_N.jpg and sa_N.json."


@dataclass(frozen=True, kw_only=True)
class Sa1bLoader:
    """Loads a photo with its masks. EXIF orientation is not applied: masks refer to the pixels as stored."""

    root: str
    max_pixels: int = MAX_PIXELS

    def __call__(self, item: Item, canvas: Canvas) -> Decoded:
        """Loads a photo; one without annotations has an empty list of masks. Raises Unreadable."""
        data = read(self.root, item.photo or Span(item.ref))
        decoded = decode(data, upright=False, canvas=canvas, max_pixels=self.max_pixels)
        return decoded._replace(masks=parse_masks(read(self.root, item.masks)) if item.masks else [])


def parse_masks(data: bytes) -> list[list[float]]:
    """The masks in a sa_N.json, as in `Decoded.masks`. Raises Unreadable."""
    try:
        rows = [
            [*a["bbox"], a["predicted_iou"], a["stability_score"]] for a in json.loads(data)["annotations"]
        ]
        numbers = np.array(rows, np.float64).reshape(len(rows), 6)
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable("bad-annotations") from error
    if not np.isfinite(numbers).all():
        raise Unreadable("bad-annotations")
    return numbers.tolist()


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
    entries = fs.find(folder, "*")
    if not entries and not fs.exists(folder):
        raise no_folder(folder, "sa1b")
    tars = {name: entry for name, entry in entries.items() if re.fullmatch(r"sa_\d+\.tar", name)}
    volumes: list[Volume] = []
    if tars:
        volumes += tar_volumes(folder, tars, _is_ours, limit=limit, index=index)
    left = None if limit is None else limit - sum(len(volume.photos) for volume in volumes)
    if left is None or left > 0:
        folders = {name: e for name, e in entries.items() if e.is_folder and f"{name}.tar" not in tars}
        volumes += list_volumes(
            folder,
            folders,
            lambda name: _extracted(fs.find(fs.join(folder, name), "*")),
            "folders listed",
            limit=left,
            index=index,
        )
        volumes.append(Volume("", _extracted(entries)))
    volumes = [volume for volume in volumes if len(volume.photos)]
    if not volumes:
        raise DenseCLIError(f"{folder} holds no photo of SA-1B.", hint=_LAYOUT)
    _refuse_twins(volumes)
    listing = Listing(volumes, limit)
    return Source(
        name="sa1b",
        split=request.split,
        digest=listing.digest,
        items=listing,
        load=Sa1bLoader(root=folder, max_pixels=request.max_pixels),
        has_masks=any(volume.photos["masks_size"].any() for volume in volumes),
        index_bytes=listing.index_bytes,
    )


def _is_ours(name: str) -> bool:
    return bool(_FILE.fullmatch(name))


def _extracted(files: dict[str, fs.Entry]) -> np.ndarray:
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
    Dataset(source=sa1b_source),
    help="SA-1B as released: tars or the extracted folders, with masks.",
)
