"""The one filesystem seam: every byte of a store is read and written here, through fsspec."""

import mmap
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from glob import has_magic
from typing import Any, BinaryIO, NamedTuple

import xxhash
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from densecli.core.addresses import absolute as absolute
from densecli.core.addresses import check as check
from densecli.core.addresses import is_web as is_web
from densecli.core.addresses import join as join
from densecli.core.addresses import public as public
from densecli.core.clients import client
from densecli.core.errors import Unreachable

# What a killed writer may leave behind starts and ends so; no shard, receipt or column is named like that.
TEMPORARY = (".", ".tmp")

# Seconds before the second and the third attempt at a file on the web: other clients try again by themselves.
_PAUSES = (0.5, 2.0)


class File(NamedTuple):
    """bytes: its size. modified: seconds since 1970."""

    bytes: int
    modified: float


def read_bytes(url: str) -> bytes:
    """The whole file, in one get. Raises FileNotFoundError when there is none."""
    return _get(url)


def map_bytes(url: str) -> bytes | mmap.mmap:
    """As `read_bytes`, but a local file is mapped: what nobody slices is never copied.

    Shards are replaced by renaming, never changed in place, so a map shows the file it was made of.
    """
    with client(url) as (fs, path):
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size:
                    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                return b""
    return read_bytes(url)


def is_local(url: str) -> bool:
    """Whether a file there is one of this machine's."""
    with client(url) as (fs, _):
        return isinstance(fs, LocalFileSystem)


def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on, in one get; fewer where the file ends. Raises FileNotFoundError."""
    return _get(url, start=offset, end=offset + size)


def _get(url: str, **part: int) -> bytes:
    for pause in _PAUSES if is_web(url) else ():
        with suppress(Unreachable):
            return _get_once(url, **part)
        time.sleep(pause)
    return _get_once(url, **part)


def _get_once(url: str, **part: int) -> bytes:
    with client(url) as (fs, path):
        # s3fs would ask for the size first, then get ranges side by side, and try none of them again.
        one_get = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        data: bytes = fs.cat_file(path, **part, **one_get)
        return data


@contextmanager
def open_to_seek(url: str) -> Iterator[BinaryIO]:
    """A file to be read a little here and there: what lies between is not fetched.

    Whatever goes wrong in the block is taken for a failure to read, but for DenseCLIErrors.
    """
    with client(url) as (fs, path), fs.open(path, "rb", block_size=64 * 1024) as file:
        yield file


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    with client(url) as (fs, path):
        return bool(fs.exists(path))


def is_folder(url: str) -> bool:
    """Whether a folder is there; in an object store, whether anything is below it."""
    with client(url) as (fs, path):
        return bool(fs.isdir(path))


def listdir(url: str) -> list[str]:
    """Sorted names in a folder, without leftover temporaries; empty when there is no such folder."""
    return sorted(name for name in _listing(url) if not is_temporary(name))


def files(url: str) -> dict[str, File]:
    """The files of a folder by name, leftover temporaries too; empty when there is no such folder."""
    found = {}
    for name, entry in sorted(_listing(url).items()):
        if entry["type"] == "file":
            # Each file system has a name of its own for it.
            when = next(entry[word] for word in ("mtime", "LastModified", "created") if word in entry)
            found[name] = File(entry["size"], when.timestamp() if isinstance(when, datetime) else when)
    return found


def is_temporary(name: str) -> bool:
    """Whether a killed writer left the file of this name."""
    return name.startswith(TEMPORARY[0]) and name.endswith(TEMPORARY[1])


def _listing(url: str) -> dict[str, dict[str, Any]]:
    """fsspec's entry of everything in a folder, by name."""
    with client(url) as (fs, path):
        try:
            entries = fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
    return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry for entry in entries}


class Entry(NamedTuple):
    """stamp: changes when the file, or what is in the folder, does, as far as its file system tells (size,
    time, ETag, ...); "" where it does not tell."""

    size: int
    stamp: str
    is_folder: bool


def find(folder: str, pattern: str = "**") -> dict[str, Entry]:
    """What `pattern` (`*`, `**`, `?`, `[...]`) matches below `folder`, by sorted relative name.

    Names that begin with a dot are passed over, links to folders too. Empty where there is no such folder. A
    pattern that is a plain name is asked for without listing anything.
    """
    with client(folder) as (fs, root):
        root = root.rstrip("/")
        if not has_magic(pattern):
            try:
                return {pattern: _entry(fs.info(f"{root}/{pattern}"))}
            except FileNotFoundError:
                return {}
        matches = re.compile(glob_translate(pattern)).match
        deepest = None if "**" in pattern else pattern.count("/")
        found: dict[str, Entry] = {}
        folders = [""]
        # Not fsspec's glob: it takes the characters of the folder's own name for a pattern. Nor its walk: it
        # passes over a subfolder that it fails to list.
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
                # An object store may list an empty object that stands for the folder itself.
                if name.startswith(".") or info["name"].endswith("/"):
                    continue
                is_folder = info["type"] == "directory"
                if is_folder and (deepest is None or below.count("/") < deepest):
                    folders.append(f"{below}{name}/")
                if matches(below + name) and (is_folder or info["type"] == "file" or fs.isfile(info["name"])):
                    found[below + name] = _entry(info)
    return dict(sorted(found.items()))


def _entry(info: dict[str, Any]) -> Entry:
    is_folder = info["type"] == "directory"
    # A folder of an object store is but a part of names.
    told = not is_folder or "mtime" in info
    # A digest, for there may be millions of entries.
    stamp = xxhash.xxh3_128_hexdigest(repr(sorted(info.items())).encode()) if told else ""
    return Entry(info["size"] or 0, stamp, is_folder)


def remove(url: str) -> None:
    """Remove one file. Raises FileNotFoundError when there is none, where the file system can tell."""
    with client(url) as (fs, path):
        fs.rm_file(path)


def remove_folder(url: str) -> None:
    """Remove a folder with all that is in it."""
    with client(url) as (fs, path):
        fs.rm(path, recursive=True)


def write_atomic(url: str, data: bytes | memoryview | list[bytes]) -> None:
    """Write a file, or replace it, so that a reader sees all of it or none, even across a power cut.

    Locally: temporary name in the same folder, fsync, rename, fsync of the folder. Elsewhere one put, which
    object stores publish as a whole. data: whole, or in parts. Raises DenseCLIError when the place is full or
    cannot be written.
    """
    parts = data if isinstance(data, list) else [data]
    with client(url, "write") as (fs, path):
        if isinstance(fs, LocalFileSystem):
            _write_local(path, parts)
        else:
            fs.pipe_file(path, b"".join(parts))


def _write_local(path: str, parts: Sequence[bytes | memoryview]) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY[0]}{name}.{uuid.uuid4().hex}{TEMPORARY[1]}")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    # The rename itself is durable only once the folder is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
