"""The one filesystem seam: every byte of a store is read and written here, through fsspec."""

import errno
import hashlib
import mmap
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from shards.errors import DenseCLIError, Unreachable

# What a killed writer may leave behind starts and ends so; no shard, receipt or column is named like that.
TEMPORARY = (".", ".tmp")

# USER@; USER:PASSWORD@, where the password may have slashes (HOST:PORT/a@b.jpg is none); ?NAME=VALUE.
_SECRETS = re.compile(r"://([^/]*@|[^/]*:(?!\d+/).*@|.*\?.*=)")
# Lists of photos may have signed addresses of these.
_SIGNED = ("http://", "https://")


class File(NamedTuple):
    """bytes: its size. modified: seconds since 1970."""

    bytes: int
    modified: float


def join(url: str | os.PathLike, *parts: str) -> str:
    """The address of `parts` below `url`."""
    return "/".join([os.fspath(url).rstrip("/"), *parts])


def absolute(url: str) -> str:
    """A path as any folder's process would write it; a URL as it is. Raises DenseCLIError as `check` does."""
    check(url)
    return url if "://" in url else os.path.abspath(url)


def check(url: str) -> None:
    """Raises DenseCLIError, which does not repeat them, where a URL has credentials or a query in it.

    Addresses are written into stores, runs and logs; what opens them comes from the environment alone.
    """
    if _SECRETS.search(url):
        raise DenseCLIError(
            f"An address that begins with {urlsplit(url).scheme}:// has credentials or a query in it.",
            hint="Leave them out and give credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, "
            "...).",
        )


def public(url: str) -> str:
    """An address as it may be written down: of http, without user and query, which carry credentials.

    Only addresses in lists of photos may have any: all others have passed `check`.
    """
    if not url.startswith(_SIGNED):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def read_bytes(url: str) -> bytes:
    """The whole file, in one get. Raises FileNotFoundError when there is none."""
    with _filesystem(url) as (fs, path):
        # s3fs would ask for the size first, then get ranges side by side, which it does not try again.
        one_get = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        return fs.cat_file(path, **one_get)


def map_bytes(url: str) -> bytes | mmap.mmap:
    """As `read_bytes`, but a local file is mapped: what nobody slices is never copied.

    Shards are replaced by renaming, never changed in place, so a map shows the file it was made of.
    """
    with _filesystem(url) as (fs, path):
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size:
                    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                return b""
    return read_bytes(url)


def is_local(url: str) -> bool:
    """Whether a file there is one of this machine's."""
    with _filesystem(url) as (fs, _):
        return isinstance(fs, LocalFileSystem)


def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on, in one get; fewer where the file ends. Raises FileNotFoundError."""
    with _filesystem(url) as (fs, path):
        return fs.cat_file(path, start=offset, end=offset + size)


def open_to_seek(url: str) -> BinaryIO:
    """A file to be read a little here and there: what lies between is not fetched."""
    with _filesystem(url) as (fs, path):
        return fs.open(path, "rb", block_size=64 * 1024)


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    with _filesystem(url) as (fs, path):
        return fs.exists(path)


def is_folder(url: str) -> bool:
    """Whether a folder is there; in an object store, whether anything is below it."""
    with _filesystem(url) as (fs, path):
        return fs.isdir(path)


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
    with _filesystem(url) as (fs, path):
        try:
            entries = fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
    return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry for entry in entries}


def sizes(url: str, *, subfolders: bool) -> dict[str, int]:
    """The bytes of every file in a folder, by its name relative to it, with or without those in subfolders.

    Names that begin with a dot are passed over, links to folders are not followed.
    """
    found: dict[str, int] = {}
    with _filesystem(url) as (fs, root):
        folders = [""]
        # Not fsspec's walk: it passes over a subfolder that it fails to list.
        while folders:
            folder = folders.pop()
            for entry in fs.ls(f"{root.rstrip('/')}/{folder}".rstrip("/"), detail=True):
                name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
                # An object store may list an empty object that stands for the folder itself.
                if name.startswith(".") or entry["name"].endswith("/"):
                    continue
                if entry["type"] == "directory":
                    folders += [f"{folder}{name}/"] * subfolders
                elif entry["type"] == "file" or fs.isfile(entry["name"]):
                    found[folder + name] = entry["size"]
    return found


class Entry(NamedTuple):
    """stamp: changes when the file does, as far as its file system tells (size, time, ETag, ...)."""

    size: int
    stamp: str
    is_folder: bool


def find(folder: str, pattern: str = "") -> dict[str, Entry]:
    """What `pattern` (`*`, `**`, `?`) matches below `folder`, else every file, by sorted relative name."""
    with _filesystem(folder) as (fs, root):
        found = fs.glob(f"{root}/{pattern}", detail=True) if pattern else fs.find(root, detail=True)
    return {path[len(root) :].strip("/"): _entry(info) for path, info in sorted(found.items())}


def _entry(info: dict) -> Entry:
    stamp = hashlib.sha256(repr(sorted(info.items())).encode()).hexdigest()
    return Entry(info["size"] or 0, stamp, info["type"] == "directory")


def remove(url: str) -> None:
    """Remove one file. Raises FileNotFoundError when there is none, where the file system can tell."""
    with _filesystem(url) as (fs, path):
        fs.rm_file(path)


def remove_folder(url: str) -> None:
    """Remove a folder with all that is in it."""
    with _filesystem(url) as (fs, path):
        fs.rm(path, recursive=True)


def write_atomic(url: str, data: bytes | Sequence[bytes]) -> None:
    """Write a file, or replace it, so that a reader sees all of it or none, even across a power cut.

    Locally: temporary name in the same folder, fsync, rename, fsync of the folder. Elsewhere one put, which
    object stores publish as a whole. data: whole, or in parts. Raises DenseCLIError when the place is full or
    cannot be written.
    """
    parts = [data] if isinstance(data, bytes) else data
    with _filesystem(url, "write") as (fs, path):
        if isinstance(fs, LocalFileSystem):
            _write_local(path, parts)
        else:
            fs.pipe_file(path, b"".join(parts))


@contextmanager
def _filesystem(url: str, verb: str = "read") -> Iterator[tuple[AbstractFileSystem, str]]:
    """The file system of an address and the path in it, in a block that says what fails as a DenseCLIError.

    When reading, FileNotFoundError passes, and so does whatever a local disk says. A remote file system's
    client has by then tried again by itself, with growing pauses.
    """
    if not url.startswith(_SIGNED):
        check(url)
    try:
        # Listings are not kept: another process may just have written there.
        fs, path = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise DenseCLIError(
            f"Addresses that begin with {urlsplit(url).scheme}:// need a package that is not installed.",
            hint=f"{error}.",
        ) from error
    except ValueError as error:
        raise DenseCLIError(
            f"There is no file system for addresses that begin with {urlsplit(url).scheme}://.",
            hint="Give a folder, or an address that fsspec knows: s3://, gs://, abfs://, ...",
        ) from error
    local = isinstance(fs, LocalFileSystem)
    try:
        yield fs, path
    except Exception as error:
        # Clients of object stores raise exceptions of many kinds, not only OSError.
        if (local and not isinstance(error, OSError)) or (
            verb == "read" and (local or isinstance(error, FileNotFoundError))
        ):
            raise
        kind = DenseCLIError if local or isinstance(error, PermissionError) else Unreachable
        raise kind(f"Could not {verb} {public(url)}: {_reason(error)}.", hint=_hint(error, local)) from error


def _reason(error: Exception) -> str:
    """Never the client's whole message, which may name endpoints as the environment has them."""
    return getattr(error, "strerror", None) or type(error).__name__


def _hint(error: Exception, local: bool) -> str:
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free some space and run the same command again; nothing half written was published."
    if local:
        return "Check that the folder exists and that you may write to it."
    return (
        "Check the address and the credentials in the environment, then run the same command again: "
        "nothing half written was published."
    )


def _write_local(path: str, parts: Sequence[bytes]) -> None:
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
