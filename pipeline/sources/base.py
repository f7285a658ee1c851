"""Where photos come from: a listing with an identity, and a small loader that travels to other processes."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.shards.geometry import Canvas

# A member is called KEY.EXTENSION and a USTAR name without folders holds 100 bytes.
MAX_KEY = 80


class Unreadable(Exception):
    """A photo that cannot be used. `str()` is one word, the reason it is counted under."""


class Span(NamedTuple):
    """Bytes of a file: all of them where `size` is None."""

    file: str
    offset: int = 0
    size: int | None = None


class Item(NamedTuple):
    """key: unique in the source and safe in a tar; ref: which photo it is, for people.

    photo, masks: where its bytes and those of its annotations are, where `ref` does not say it.
    """

    key: str
    ref: str
    photo: Span | None = None
    masks: Span | None = None


class Index(NamedTuple):
    """A folder that remembers the contents of tars, so that an unchanged tar is not read again.

    Attributes:
        folder: Path or URL of the folder.
        save: Whether to add newly read tars.
    """

    folder: str
    save: bool


@dataclass(frozen=True, kw_only=True)
class SourceRequest:
    """What a source is asked to list.

    Attributes:
        data: Folder, file, pattern or URL of the photos.
        split: Part of the data set. Empty: all of it.
        limit: Number of photos to list, the first ones; None for all.
        seed: Seed of a generated data set.
        index: Where the contents of tars are remembered between runs.
    """

    data: str
    split: str = ""
    limit: int | None = None
    seed: int = 0
    index: Index | None = None


class Decoded(NamedTuple):
    """image: RGB, perhaps at a smaller scale than the photo's own width x height.

    masks: x, y, w, h in pixels of the photo, predicted_iou and stability_score of each; None where the data
    set has no masks.
    """

    image: Image.Image
    width: int
    height: int
    masks: list[list[float]] | None = None


Load = Callable[[Item, Canvas], Decoded]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A listing of photos.

    split: "" where none was asked for. items: in an order that the data alone decide; where there are very
    many, made when asked for. load(item, canvas): the photo, decoded for that canvas, or `Unreadable`;
    picklable and without the listing, so that a unit of work carries its own few items and no more. digest:
    sha256 of what the listing names. options: what else was asked for, by the names of build-shards' flags.
    has_masks: whether the photos come with masks. index_bytes: what a build keeps of the listing.
    """

    name: str
    split: str
    digest: str
    items: Sequence[Item]
    load: Load
    options: Mapping[str, Any] = field(default_factory=dict)
    has_masks: bool = False
    index_bytes: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What a store records, and what enters every column key: another listing is another data set."""
        n = len(self.items)
        return {"name": self.name, "split": self.split, "digest": self.digest, "n": n, **self.options}


def listing_digest(lines: Iterable[str]) -> str:
    """sha256 of the lines, each ended by a newline."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def files_source(name: str, split: str, sizes: dict[str, int], limit: int | None, load: Load) -> Source:
    """The source of files {relative name with '/': bytes}, by key; its digest covers names and sizes."""
    keys = safe_keys(list(sizes))
    items = sorted(Item(keys[ref], ref) for ref in sizes)[:limit]
    digest = listing_digest(f"{item.key}\t{item.ref}\t{sizes[item.ref]}" for item in items)
    return Source(name=name, split=split, digest=digest, items=items, load=load)


def safe_keys(names: Sequence[str], longest: int = MAX_KEY) -> dict[str, str]:
    """A key for each relative file name: its path without the extension, letters, digits, '-' and '_' alone.

    Names that would share a key, and names that are too long, get 12 hex of their own digest.
    """
    plain = {name: re.sub(r"[^A-Za-z0-9_-]", "_", re.sub(r"\.[^./]*$", "", name)) for name in names}
    # Folded, so that the members of a tar also stay apart on a file system that ignores case.
    uses = Counter(key.casefold() for key in plain.values())

    def key_of(name: str) -> str:
        key = plain[name]
        if len(key) <= longest and uses[key.casefold()] == 1:
            return key
        return f"{key[: longest - 13]}-{listing_digest([name])[:12]}"

    return {name: key_of(name) for name in names}


def no_folder(folder: str, what: str) -> DenseCLIError:
    """The error for a data folder that is not there."""
    return DenseCLIError(
        f"There is no folder {folder} with the photos of {what}.",
        hint="Give the folder with --data DIR, or put or link it there.",
    )
