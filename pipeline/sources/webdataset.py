"""Photos in any WebDataset: a folder of tars or a pattern of names, local or in an object store."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from braceexpand import braceexpand

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry, find
from densecli.core.passed_over import PassedOver
from densecli.core.pictures import EXTENSIONS
from densecli.pipeline.sources.base import Source, SourceRequest, no_photo
from densecli.pipeline.sources.photos import PhotoLoader
from densecli.pipeline.sources.tars import Place, Row
from densecli.pipeline.sources.volumes import Listing, tar_volumes
from densecli.shards.datasets import DATASETS, Dataset

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4", ".tar.z")
"""How names of compressed tars end: their members cannot be read in place."""
ROLES = ("image", "img", "photo", "picture", "rgb")
"""Names of the photo among a sample's pictures, as in 7.image.jpg."""


def webdataset_source(request: SourceRequest) -> Source:
    """Lists the photos of tars, each in the tar's own order. Keys are TAR+SAMPLE.

    EXIF orientation is applied.

    Args:
        request: `data` is a folder of tars (with its subfolders), one tar, or a pattern of names
            (`{000..127}`, `*`, `?`); `split` names a subfolder to read alone.

    Raises:
        DenseCLIError: There is no tar, or no photo in the tars.
    """
    data, limit = request.data, request.limit
    folder, _ = _place(request)
    passed = PassedOver()
    tars = _find(request, passed) if request.tars is None else request.tars
    volumes = list(tar_volumes(folder, tars, choose_photos, request))
    for volume in volumes:
        passed.update(volume.passed, volume.name)
    volumes = [volume for volume in volumes if len(volume.photos)]
    if not volumes:
        layout = f"Photos are members in {', '.join(EXTENSIONS)}, one for each sample."
        raise no_photo(f"The tars at {data} hold no photo", layout, passed)
    listing = Listing(volumes, limit, prefixed=True)
    return Source(
        name="webdataset",
        split=request.split,
        digest=listing.digest,
        items=listing,
        load=PhotoLoader(root=folder, upright=True, max_pixels=request.max_pixels),
        blocks=listing.blocks,
        index_bytes=listing.index_bytes,
        passed=passed,
    )


def find_tars(request: SourceRequest) -> dict[str, Entry]:
    """The tars of a request by their path. Raises DenseCLIError if there is none."""
    return _find(request, PassedOver())


def _place(request: SourceRequest) -> tuple[str, str]:
    """The folder of the tars, and the pattern of their names."""
    return _split_pattern(fs.join(request.data, request.split) if request.split else request.data)


def _find(request: SourceRequest, passed: PassedOver) -> dict[str, Entry]:
    folder, pattern = _place(request)
    tars: dict[str, Entry] = {}
    for names in _expanded(pattern) if pattern else ["**"]:
        for name, entry in find(folder, names, passed=passed).items():
            if name.lower().endswith(".tar") and not entry.is_folder:
                tars[name] = entry
            elif not entry.is_folder:
                compressed = name.lower().endswith(COMPRESSED)
                passed.add("compressed, not a plain .tar" if compressed else "not named as a tar", name)
    if not tars:
        layout = (
            "--data is a folder of tars, or a pattern such as 'DIR/{000..127}.tar'; compressed tars have to "
            "be uncompressed first (gunzip FILE.tar.gz)."
        )
        raise no_photo(f"There is no .tar at {request.data}", layout, passed)
    return tars


def _split_pattern(data: str) -> tuple[str, str]:
    """Splits --data into a folder and a pattern of names; a single tar is its own pattern."""
    before = re.split(r"[*?{]", data, maxsplit=1)[0]
    if before == data and not data.lower().endswith((".tar", *COMPRESSED)):
        return data, ""
    folder = before.rpartition("/")[0]
    return folder, data[len(folder) + 1 :]


def _expanded(pattern: str) -> Iterator[str]:
    """The names that a pattern with braces stands for."""
    try:
        yield from braceexpand(pattern)
    except ValueError as error:
        raise DenseCLIError(
            f"The braces in the pattern {pattern} do not match.",
            hint="Write a range as {000..127}, or give the folder of the tars.",
        ) from error


def choose_photos(members: Mapping[str, Place], passed: PassedOver) -> list[Row]:
    """The photos among the members of a tar.

    WebDataset's sample is the name up to its first dot, the rest its extension: 7.jpg is a photo, and beside
    it 7.mask.png is none. People write two more kinds of names, which are photos where it is certain:
    7.image.jpg, the only picture of its sample or the one that is called so; and photo.1.jpg, photo.2.jpg,
    which share a beginning that no other pictures share in the same way.
    """
    chosen: set[str] = set()
    dotted: dict[tuple[str, str], list[str]] = {}
    whole: set[tuple[str, str]] = set()
    for name in members:
        folder, _, base = name.rpartition("/")
        sample, dot, extension = base.partition(".")
        if not sample:
            passed.add("hidden", name)
        elif dot + extension.lower() in EXTENSIONS:
            chosen.add(name)
            whole.add((folder, sample))
        elif base.lower().endswith(EXTENSIONS):
            dotted.setdefault((folder, sample), []).append(name)
        else:
            passed.add("not named as a photo", name)
    ends = Counter(_ends(names) for names in dotted.values())
    for sample_of, names in dotted.items():
        # Members that every sample has are an image and its mask, not photos of their own.
        alone = ends[_ends(names)] == 1 and len({name.rpartition(".")[2] for name in names}) == 1
        called = [name for name in names if name.rsplit(".", 2)[1].lower() in ROLES]
        if sample_of in whole:
            photos = []
        elif alone or len(names) == 1:
            photos = names
        else:
            photos = called if len(called) == 1 else []
        chosen.update(photos)
        for name in names:
            if name not in chosen:
                passed.add(
                    "beside the photo of its sample"
                    if photos or sample_of in whole
                    else "one of several pictures of a sample",
                    name,
                )
    return [(_bytes(name), *place, 0, 0) for name, place in members.items() if name in chosen]


def _ends(names: Sequence[str]) -> frozenset[str]:
    """The parts of names after the first dot."""
    return frozenset(name.rpartition("/")[2].partition(".")[2] for name in names)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


DATASETS.add(
    "webdataset",
    Dataset(source=webdataset_source, tars=find_tars),
    help="A WebDataset: a folder of tars, or a pattern of their names.",
)
