"""Where photos come from: a listing with an identity, and a small loader that travels to other processes."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from shards.errors import DenseCLIError

# A member is called KEY.EXTENSION and a USTAR name without folders holds 100 bytes.
MAX_KEY = 80


class Unreadable(Exception):
    """A photo that cannot be used. `str()` is one word, the reason it is counted under."""


class Item(NamedTuple):
    """key: unique in the source and safe in a tar; ref: what the loader needs to find the photo."""

    key: str
    ref: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A listing of photos.

    split: "" where none was asked for. items: sorted by key. load(item): the photo in RGB, or `Unreadable`;
    picklable and without the listing, so that a unit of work carries its own few items and no more. digest:
    sha256 of what the listing names. options: what else was asked for, by the names of build-shards' flags.
    """

    name: str
    split: str
    digest: str
    items: Sequence[Item]
    load: Callable[[Item], Image.Image]
    options: Mapping[str, Any] = field(default_factory=dict)

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


def files_source(
    name: str, split: str, sizes: dict[str, int], limit: int | None, load: Callable[[Item], Image.Image]
) -> Source:
    """The source of files {relative name with '/': bytes}; its digest covers keys, names and sizes."""
    keys = safe_keys(list(sizes))
    items = sorted(Item(keys[ref], ref) for ref in sizes)[:limit]
    digest = listing_digest(f"{item.key}\t{item.ref}\t{sizes[item.ref]}" for item in items)
    return Source(name=name, split=split, digest=digest, items=items, load=load)


def safe_keys(names: Sequence[str]) -> dict[str, str]:
    """A key for each relative file name: its path without the extension, letters, digits, '-' and '_' alone.

    Names that would share a key, and names too long for a tar, get 12 hex of their own digest.
    """
    plain = {name: re.sub(r"[^A-Za-z0-9_-]", "_", re.sub(r"\.[^./]*$", "", name)) for name in names}
    # Folded, so that the members of a tar also stay apart on a file system that ignores case.
    uses = Counter(key.casefold() for key in plain.values())

    def key_of(name: str) -> str:
        key = plain[name]
        if len(key) <= MAX_KEY and uses[key.casefold()] == 1:
            return key
        return f"{key[: MAX_KEY - 13]}-{listing_digest([name])[:12]}"

    return {name: key_of(name) for name in names}


def no_folder(folder: str, what: str) -> DenseCLIError:
    """The error for a data folder that is not there."""
    return DenseCLIError(
        f"There is no folder {folder} with the photos of {what}.",
        hint="Give the folder with --data DIR, or put or link it there.",
    )
