"""The one filesystem seam: every byte of a store is read and written here, through fsspec."""

import errno
import hashlib
import os
import uuid
from datetime import datetime
from typing import BinaryIO, NamedTuple

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from shards.errors import DenseCLIError

# What a killed writer may leave behind starts and ends so; no shard, receipt or column is named like that.
TEMPORARY = (".", ".tmp")


class File(NamedTuple):
    """bytes: its size. modified: seconds since 1970."""

    bytes: int
    modified: float


def join(url: str | os.PathLike, *parts: str) -> str:
    """The address of `parts` below `url`."""
    return "/".join([os.fspath(url).rstrip("/"), *parts])


def absolute(url: str) -> str:
    """A path as any folder's process would write it; a URL as it is."""
    return url if "://" in url else os.path.abspath(url)


def read_bytes(url: str) -> bytes:
    """The whole file, in one get. Raises FileNotFoundError when there is none."""
    fs, path = url_to_fs(url)
    return fs.cat_file(path)


def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on, in one get; fewer where the file ends. Raises FileNotFoundError."""
    fs, path = url_to_fs(url)
    return fs.cat_file(path, start=offset, end=offset + size)


def open_to_seek(url: str) -> BinaryIO:
    """A file to be read a little here and there: what lies between is not fetched."""
    fs, path = url_to_fs(url)
    return fs.open(path, "rb", block_size=64 * 1024)


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = url_to_fs(url)
    return fs.exists(path)


def listdir(url: str) -> list[str]:
    """Sorted names in a folder, without leftover temporaries; empty when there is no such folder."""
    return sorted(name for name in _listing(url) if not is_temporary(name))


def files(url: str) -> dict[str, File]:
    """The files of a folder by name, leftover temporaries too; empty when there is no such folder."""
    found = {}
    for name, entry in sorted(_listing(url).items()):
        if entry["type"] == "file":
            # Each file system has a name of its own for it.
            time = next(entry[word] for word in ("mtime", "LastModified", "created") if word in entry)
            found[name] = File(entry["size"], time.timestamp() if isinstance(time, datetime) else time)
    return found


def is_temporary(name: str) -> bool:
    """Whether a killed writer left the file of this name."""
    return name.startswith(TEMPORARY[0]) and name.endswith(TEMPORARY[1])


def _listing(url: str) -> dict[str, dict]:
    """fsspec's entry of everything in a folder, by name."""
    fs, path = url_to_fs(url)
    # Object stores and fsspec cache listings, and another process may just have written here.
    fs.invalidate_cache(path)
    try:
        return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry for entry in fs.ls(path, detail=True)}
    except FileNotFoundError:
        return {}


class Entry(NamedTuple):
    """stamp: changes when the file does, as far as its file system tells (size, time, ETag, ...)."""

    size: int
    stamp: str
    is_folder: bool


def find(folder: str, pattern: str = "") -> dict[str, Entry]:
    """What `pattern` (`*`, `**`, `?`) matches below `folder`, else every file, by sorted relative name."""
    fs, root = url_to_fs(folder)
    fs.invalidate_cache(root)
    found = fs.glob(f"{root}/{pattern}", detail=True) if pattern else fs.find(root, detail=True)
    return {path[len(root) :].strip("/"): _entry(info) for path, info in sorted(found.items())}


def _entry(info: dict) -> Entry:
    stamp = hashlib.sha256(repr(sorted(info.items())).encode()).hexdigest()
    return Entry(info["size"] or 0, stamp, info["type"] == "directory")


def makedirs(url: str) -> None:
    """Make the folder and its parents; fine when they are there."""
    fs, path = url_to_fs(url)
    fs.makedirs(path, exist_ok=True)


def remove(url: str) -> None:
    """Remove one file. Raises FileNotFoundError when there is none."""
    fs, path = url_to_fs(url)
    fs.rm_file(path)


def remove_folder(url: str) -> None:
    """Remove a folder with all that is in it."""
    fs, path = url_to_fs(url)
    fs.rm(path, recursive=True)


def write_atomic(url: str, data: bytes | memoryview) -> None:
    """Write a file, or replace it, so that a reader sees all of it or none, even across a power cut.

    Locally: temporary name in the same folder, fsync, rename, fsync of the folder. Elsewhere one put, which
    object stores publish as a whole. Raises DenseCLIError when the place is full or cannot be written.
    """
    fs, path = url_to_fs(url)
    try:
        fs.makedirs(fs._parent(path), exist_ok=True)
        if isinstance(fs, LocalFileSystem):
            _write_local(path, data)
        else:
            fs.pipe_file(path, bytes(data))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DenseCLIError(
            f"Could not write {url}: {error.strerror or error}.",
            hint="Free some space and run the same command again; nothing half written was published."
            if full
            else "Check that the folder exists and that you may write to it.",
        ) from error


def _write_local(path: str, data: bytes | memoryview) -> None:
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"{TEMPORARY[0]}{name}.{uuid.uuid4().hex}{TEMPORARY[1]}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
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
