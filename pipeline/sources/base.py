"""The base of sources: a listing of photos with an identity, and a small loader that is sent to workers."""

import hashlib
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry, find
from densecli.core.passed_over import PassedOver, in_words
from densecli.core.pictures import EXTENSIONS
from densecli.core.pictures import Unreadable as Unreadable
from densecli.pipeline.config import BuildConfig, WebSettings
from densecli.pipeline.sources.index import Index as Index
from densecli.pipeline.sources.tars import TarLister
from densecli.shards.geometry import Canvas
from densecli.shards.npz import decode_npz
from densecli.shards.segmentation import PhotoMasks
from densecli.shards.specs import DatasetIdentity
from densecli.shards.writer import npz_bytes

MAX_KEY = 80
"""Longest key in characters. Tar members are named KEY.EXTENSION, and USTAR allows 100 bytes."""


_EXTENSION, _UNSAFE = re.compile(r"\.[^./\0]*(?=\0|\Z)"), re.compile(r"[^A-Za-z0-9_\0-]")


class Span(NamedTuple):
    """A range of bytes in a file.

    Attributes:
        file: Path below the source's root, or a URL.
        offset: First byte.
        size: Number of bytes; None for the whole file.
    """

    file: str
    offset: int = 0
    size: int | None = None


class Item(NamedTuple):
    """One listed photo.

    Attributes:
        key: Unique in the source, and safe as a name in a tar.
        ref: The photo's path, URL or number, for the loader and for people.
        photo: Where the photo's bytes are; None if the file `ref` holds nothing else.
        masks: Where the bytes of its annotations are; None if it has none.
    """

    key: str
    ref: str
    photo: Span | None = None
    masks: Span | None = None


@dataclass(frozen=True, kw_only=True)
class SourceRequest:
    """A request to list photos.

    Attributes:
        data: Folder, file, pattern or URL of the photos.
        split: Part of the data set. Empty: all of it.
        limit: Number of photos to list, from the start; None for all.
        seed: Seed of a generated data set.
        index: Remembers listings.
        max_pixels: Pixels of the largest photo that is decoded.
        web: What may be fetched from the addresses of a list.
        tars: The only tars to list, by their path below the folder of tars; None for all.
        lister: Lists tars elsewhere.
    """

    data: str
    split: str = ""
    limit: int | None = None
    seed: int = BuildConfig.seed
    index: Index | None = None
    max_pixels: int = BuildConfig.max_pixels
    web: WebSettings = field(default_factory=WebSettings)
    tars: Mapping[str, Entry] | None = None
    lister: TarLister = field(default_factory=TarLister)


class Decoded(NamedTuple):
    """A loaded photo.

    Attributes:
        image: RGB. A large photo may be decoded at a smaller scale than width x height.
        width: Width of the photo itself, in pixels.
        height: Height of the photo itself, in pixels.
    """

    image: Image.Image
    width: int
    height: int


Load = Callable[[Item, Canvas], Decoded]
"""Loads a photo for a canvas, or raises `Unreadable`."""
LoadMasks = Callable[[Item], PhotoMasks]
"""Reads what is annotated of a photo, or raises `Unreadable`."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The listed photos of a data set.

    Attributes:
        name: Name of the data set.
        split: Part that was listed. Empty: all of it.
        digest: sha256 of the listing; a changed listing is another data set.
        items: The photos, in an order that depends only on the data. A sequence that makes items on access
            keeps a long listing small.
        load: Loads a photo. It is pickled and sent to workers, so it must not hold the listing.
        options: Other flags of build-shards on which the listing depends, such as {"seed": 0}.
        masks: Reads the masks that come with photos; None if they have none. It is pickled, as `load` is.
        blocks: Numbers of photos that stand together, such as those of each tar; see `shuffled_order`. None:
            each photo can be read by itself.
        index_bytes: Bytes that the index of this listing takes in a store.
        passed: What the listing leaves out.
        listed: When a kept listing was made that nothing can be compared with, in seconds since 1970; None
            for a new or a compared one.
    """

    name: str
    split: str
    digest: str
    items: Sequence[Item]
    load: Load
    options: Mapping[str, Any] = field(default_factory=dict)
    masks: LoadMasks | None = None
    blocks: Sequence[int] | None = None
    index_bytes: int = 0
    passed: PassedOver = field(default_factory=PassedOver)
    listed: float | None = None

    @property
    def identity(self) -> DatasetIdentity:
        """The facts about its data set that a store records. They are part of every column key."""
        n = len(self.items)
        identity = {"name": self.name, "split": self.split, "digest": self.digest, "n": n, **self.options}
        # The options of a plug-in's source have names that the type does not list.
        return cast(DatasetIdentity, identity)


def listing_digest(lines: Iterable[str]) -> str:
    """sha256 of the lines, in hex, each followed by a newline."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


class Files(NamedTuple):
    """The photos in a folder and its subfolders.

    Attributes:
        sizes: Bytes of each photo, by its path below the folder.
        passed: What was left out.
        index_bytes: Bytes that an index takes to remember them.
        listed: See `Source`.
    """

    sizes: dict[str, int]
    passed: PassedOver
    index_bytes: int = 0
    listed: float | None = None


def find_photos(root: str, folder: str, index: Index | None = None) -> Files:
    """Finds the photos in a folder and its subfolders by the ends of their names.

    A folder of an object store, which has no date of its own, is listed once if there is an index.

    Args:
        root: The folder that links may not lead out of.
        folder: Where to look.
        index: Remembers the listing of a folder elsewhere.
    """
    remembers = index is not None and not fs.is_local(folder)
    entry = f"{listing_digest([folder])[:24]}.files.npz"
    if index and remembers and (data := index.kept(entry)):
        # A damaged entry is made again.
        with suppress(ValueError, KeyError, TypeError, zlib.error):
            return _read_files(data)
    sizes, passed = {}, PassedOver()
    for name, found in find(folder, passed=passed, within=root).items():
        if name.lower().endswith(EXTENSIONS) and not found.is_folder:
            sizes[name] = found.size
        elif not found.is_folder:
            passed.add("not named as a photo", name)
    files = Files(sizes, passed)
    if index and remembers and sizes:
        data = _files_entry(files)
        index.put(entry, data)
        files = files._replace(index_bytes=len(data))
    return files


def _files_entry(files: Files) -> bytes:
    """The entry of a folder in an index."""
    names = zlib.compress("\0".join(files.sizes).encode("utf-8", "surrogateescape"), 1)
    return npz_bytes(
        {
            "names": np.frombuffer(names, np.uint8),
            "sizes": np.array(list(files.sizes.values()), np.int64),
            "passed": np.frombuffer(files.passed.to_json(), np.uint8),
            "listed": np.array([time.time()]),
        }
    )


def _read_files(data: bytes) -> Files:
    arrays = decode_npz(data)
    names = zlib.decompress(arrays["names"].tobytes()).decode("utf-8", "surrogateescape").split("\0")
    sizes = dict(zip(names, arrays["sizes"].tolist(), strict=True))
    passed = PassedOver.from_json(arrays["passed"].tobytes())
    return Files(sizes, passed, len(data), arrays["listed"].item())


def files_source(
    name: str,
    split: str,
    sizes: dict[str, int],
    limit: int | None,
    load: Load,
    passed: PassedOver | None = None,
    **facts: Any,
) -> Source:
    """The source of a folder's files, sorted by key. The digest covers names and sizes.

    Args:
        name: Name of the data set.
        split: Part that was listed. Empty: all of it.
        sizes: Bytes of each file, by its path below the root, with '/'.
        limit: Number of photos to keep; None for all.
        load: Loads a photo by its path.
        passed: What was left out.
        facts: Further attributes of the source.
    """
    keys = safe_keys(list(sizes))
    items = sorted(Item(keys[ref], ref) for ref in sizes)[:limit]
    digest = listing_digest(f"{item.key}\t{item.ref}\t{sizes[item.ref]}" for item in items)
    passed = passed or PassedOver()
    return Source(name=name, split=split, digest=digest, items=items, load=load, passed=passed, **facts)


def safe_keys(names: Sequence[str], longest: int = MAX_KEY) -> dict[str, str]:
    """Makes a key for each relative file name.

    A key is the path without its extension, with '_' for every character except letters, digits, '-' and '_'.
    Names that would have the same key, and names that are too long, get 12 hex digits of their digest.

    Args:
        names: Relative paths with '/'.
        longest: Longest key in characters.

    Returns:
        The key of each name.
    """
    names = list(dict.fromkeys(names))
    return dict(zip(names, distinct_keys(names, longest), strict=True))


def distinct_keys(names: Sequence[str], longest: int = MAX_KEY) -> list[str]:
    """The keys that `safe_keys` makes of names none of which is there twice, in their order."""
    if not names:
        return []
    # One pass over all names at once: a listing of millions is cut into shards by the main process alone.
    joined = "\0".join(names)
    if joined.count("\0") >= len(names):
        joined = "\0".join(name.replace("\0", " ") for name in names)
    joined = _UNSAFE.sub("_", _without_extensions(joined))
    # Case is ignored, so that the members of a tar can be extracted on a file system that ignores it.
    keys, folded = joined.split("\0"), joined.casefold().split("\0")
    if len(set(folded)) == len(keys) and max(map(len, folded)) <= longest:
        return keys
    uses = Counter(folded)
    return [
        key
        if len(key) <= longest and uses[fold] == 1
        else f"{key[: longest - 13]}-{listing_digest([name])[:12]}"
        for name, key, fold in zip(names, keys, folded, strict=True)
    ]


def _without_extensions(joined: str) -> str:
    """Names without their extensions, with a NUL between two."""
    first = _EXTENSION.search(joined.partition("\0")[0])
    end = f"{first[0]}\0" if first else ""
    # Mostly they have the same one, and to replace it takes a tenth of the time.
    if end and joined.count(end) == joined.count("\0") and joined.endswith(end[:-1]):
        return f"{joined}\0".replace(end, "\0")[:-1]
    return _EXTENSION.sub("", joined)


def no_photo(where: str, layout: str, passed: PassedOver) -> DenseCLIError:
    """The error for a place without photos: `layout` is what was expected, `passed` what is there instead."""
    left = in_words(passed.document())
    return DenseCLIError(f"{where}.", hint=f"{layout} Passed over: {left}." if left else layout)


def no_folder(folder: str, what: str) -> DenseCLIError:
    """The error for a missing data folder of the data set `what`."""
    return DenseCLIError(
        f"There is no folder {folder} with the photos of {what}.",
        hint="Give the folder with --data DIR, or move or link it there.",
    )
