"""Photos in any WebDataset: a folder of tars or a pattern of names, local or in an object store."""

import re

from braceexpand import braceexpand

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.base import Source, SourceRequest
from densecli.pipeline.sources.folder import EXTENSIONS
from densecli.pipeline.sources.photos import PhotoLoader
from densecli.pipeline.sources.volumes import Listing, tar_volumes
from densecli.shards.datasets import DATASETS, Dataset


def webdataset_source(request: SourceRequest) -> Source:
    """Lists the photos of tars, each in the tar's own order. Keys are TAR+SAMPLE.

    EXIF orientation is applied.

    Args:
        request: `data` is a folder of tars (with its subfolders), one tar, or a pattern of names
            (`{000..127}`, `*`, `?`); `split` names a subfolder to read alone.

    Raises:
        DenseCLIError: There is no tar, or no photo in the tars.
    """
    data, split, limit = request.data, request.split, request.limit
    folder, pattern = _split_pattern(fs.join(data, split) if split else data)
    tars: dict[str, fs.Entry] = {}
    for names in braceexpand(pattern) if pattern else ["**"]:
        found = fs.find(folder, names)
        tars |= {name: e for name, e in found.items() if name.endswith(".tar") and not e.is_folder}
    if not tars:
        raise DenseCLIError(
            f"There is no .tar at {data}.",
            hint="Give a folder of tars, or a pattern such as 'DIR/{000..127}.tar', as --data.",
        )
    volumes = [
        volume
        for volume in tar_volumes(folder, tars, _is_photo, limit=limit, index=request.index)
        if len(volume.photos)
    ]
    if not volumes:
        raise DenseCLIError(
            f"The tars at {data} hold no photo.", hint=f"Photos are members in {', '.join(EXTENSIONS)}."
        )
    listing = Listing(volumes, limit, prefixed=True)
    return Source(
        name="webdataset",
        split=split,
        digest=listing.digest,
        items=listing,
        load=PhotoLoader(root=folder, upright=True, max_pixels=request.max_pixels),
        index_bytes=listing.index_bytes,
    )


def _split_pattern(data: str) -> tuple[str, str]:
    """Splits --data into a folder and a pattern of names; a single tar is its own pattern."""
    before = re.split(r"[*?{]", data, maxsplit=1)[0]
    if before == data and not data.endswith(".tar"):
        return data, ""
    folder = before.rpartition("/")[0]
    return folder, data[len(folder) + 1 :]


def _is_photo(name: str) -> bool:
    """Whether a member is a photo as WebDataset splits names: 7.jpg is one, 7.mask.png is not."""
    sample, dot, extension = name.rpartition("/")[2].partition(".")
    return bool(sample) and dot + extension.lower() in EXTENSIONS


DATASETS.add(
    "webdataset",
    Dataset(source=webdataset_source),
    help="A WebDataset: a folder of tars, or a pattern of their names.",
)
