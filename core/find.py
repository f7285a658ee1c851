"""Finds files and folders by a pattern, on any file system, and counts what is left out."""

import os
import re
from glob import has_magic
from typing import Any, NamedTuple

import xxhash
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from densecli.core.clients import client
from densecli.core.passed_over import PassedOver

_NO_FILE = "neither a file nor a folder"


class Entry(NamedTuple):
    """A file or folder that `find` found.

    Attributes:
        size: Size in bytes.
        stamp: Changes when the file, or the content of the folder, does, as far as its file system tells by
            size, time, ETag and the like. Empty where it tells nothing.
        is_folder: Whether it is a folder.
    """

    size: int
    stamp: str
    is_folder: bool


def find(
    folder: str, pattern: str = "**", *, passed: PassedOver | None = None, within: str = ""
) -> dict[str, Entry]:
    """Finds files and folders by a pattern. Skips names that begin with a dot, and links to folders.

    Args:
        folder: To look in.
        pattern: Of the names relative to it: `*`, `**`, `?` and `[...]`. A plain name is looked up without a
            listing.
        passed: Counts what is skipped. Where it is given, links out of a local folder are skipped as well.
        within: The folder that such links may not lead out of. Empty: `folder`.

    Returns:
        Entries by relative name, sorted. Empty if there is no such folder.
    """
    with client(folder) as (fs, root), client(within or folder) as (_, bound):
        root = root.rstrip("/")
        if not has_magic(pattern):
            try:
                info = fs.info(f"{root}/{pattern}")
            except FileNotFoundError:
                return {}
            # A pipe would be waited for.
            if info["type"] in ("file", "directory"):
                return {pattern: _entry(info)}
            if passed is not None:
                passed.add(_NO_FILE, pattern)
            return {}
        matches = re.compile(glob_translate(pattern)).match
        roots: tuple[str, ...] = ()
        if passed is not None and isinstance(fs, LocalFileSystem):
            roots = tuple(os.path.realpath(each).rstrip("/") + "/" for each in (root, bound))
        deepest = None if "**" in pattern else pattern.count("/")
        found: dict[str, Entry] = {}
        folders = [""]
        # fsspec's glob would read the folder's own name as a pattern, and its walk skips a subfolder that it
        # cannot list.
        while folders:
            below = folders.pop()
            try:
                entries = fs.ls(f"{root}/{below}".rstrip("/") or "/", detail=True)
            except FileNotFoundError:
                if below:
                    raise
                return {}
            for info in entries:
                name = info["name"].rstrip("/").rsplit("/", 1)[-1]
                # An object store may list an empty object for the folder itself.
                if info["name"].endswith("/"):
                    continue
                hidden = name.startswith(".")
                if passed is not None and (trouble := "hidden" if hidden else _trouble(info, roots)):
                    passed.add(trouble, below + name)
                    continue
                if hidden:
                    continue
                is_folder = info["type"] == "directory"
                if is_folder and (deepest is None or below.count("/") < deepest):
                    folders.append(f"{below}{name}/")
                if matches(below + name) and (is_folder or info["type"] == "file" or fs.isfile(info["name"])):
                    found[below + name] = _entry(info)
    return dict(sorted(found.items()))


def _trouble(info: dict[str, Any], roots: tuple[str, ...]) -> str:
    """Why an entry is neither a file nor a folder that may be read below these; empty if it is one."""
    if info.get("islink"):
        target = os.path.realpath(info["name"])
        if not os.path.exists(target):
            return "a link to nothing"
        if os.path.isdir(target):
            return "a link to a folder"
        if not target.startswith(roots):
            return "a link out of the folder"
        return "" if os.path.isfile(target) else "a link to no file"
    return "" if info["type"] in ("file", "directory") else _NO_FILE


def _entry(info: dict[str, Any]) -> Entry:
    is_folder = info["type"] == "directory"
    # A folder of an object store is only a part of names.
    told = not is_folder or "mtime" in info
    # A digest, because there may be millions of entries.
    stamp = xxhash.xxh3_128_hexdigest(repr(sorted(info.items())).encode()) if told else ""
    return Entry(info["size"] or 0, stamp, is_folder)
