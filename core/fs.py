"""Files, local and remote: every byte of a store is read and written here, through fsspec."""

import mmap
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from densecli.core.addresses import absolute as absolute
from densecli.core.addresses import check as check
from densecli.core.addresses import expanded as expanded
from densecli.core.addresses import is_web as is_web
from densecli.core.addresses import join as join
from densecli.core.addresses import public as public
from densecli.core.addresses import shown as shown
from densecli.core.clients import client
from densecli.core.errors import Unreachable
from densecli.core.signed_file import signed_file

# How the names of temporary files start and end: no shard, receipt or column has such a name.
TEMPORARY = (".", ".tmp")

# Part of the names of this process's temporary files, and of those of the processes that it starts.
_writer = uuid.uuid4().hex[:12]

# Seconds before the second and third attempt at a file on the web. Other clients retry by themselves.
_PAUSES = (0.5, 2.0)


# Linux keeps what is written at once in larger pages, which readers that map the file get at half the cost.
_WRITTEN_AT_ONCE = 1 << 22


class File(NamedTuple):
    """A file in a folder: its size in bytes, and when it was modified, in seconds since 1970."""

    bytes: int
    modified: float


class Stamp(NamedTuple):
    """By which a local file is known to be the one seen before: another one differs in one of them."""

    bytes: int
    modified_ns: int
    inode: int
    device: int


class Mapped(NamedTuple):
    """The bytes of a file, and its stamp if it is a local one."""

    data: bytes | mmap.mmap
    stamp: Stamp | None


def file_name(name: str) -> str:
    """A model's name as part of a file's or a folder's name: `timm/x` becomes `timm--x`."""
    return name.replace("/", "--")


def read_bytes(url: str) -> bytes:
    """The whole file, in one request. Raises FileNotFoundError if there is none."""
    return _get(url)


def map_bytes(url: str) -> bytes | mmap.mmap:
    """Like `read_bytes`, but maps a local file into memory: only slices are copied.

    Shards are replaced by renaming and never changed in place, so a map keeps showing the same file.
    """
    return map_file(url).data


def map_file(url: str) -> Mapped:
    """Like `map_bytes`, with the stamp of the very file that is mapped."""
    with client(url) as (fs, path):
        if isinstance(fs, LocalFileSystem):
            with open(path, "rb") as file:
                about = os.fstat(file.fileno())
                stamp = Stamp(about.st_size, about.st_mtime_ns, about.st_ino, about.st_dev)
                if about.st_size:
                    return Mapped(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), stamp)
                return Mapped(b"", stamp)
    return Mapped(read_bytes(url), None)


def is_local(url: str) -> bool:
    """Whether an address is on a file system of this machine."""
    with client(url) as (fs, _):
        return isinstance(fs, LocalFileSystem)


def local_stat(url: str) -> os.stat_result | None:
    """What the file system of this machine says about a file; None for an address elsewhere.

    Raises:
        OSError: There is no such file, or it is out of reach.
    """
    with client(url) as (fs, path):
        return os.stat(path) if isinstance(fs, LocalFileSystem) else None


def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`, in one request; fewer at the end of the file. Raises FileNotFoundError."""
    return _get(url, start=offset, end=offset + size)


def _get(url: str, **part: int) -> bytes:
    for pause in _PAUSES if is_web(url) else ():
        with suppress(Unreachable):
            return _get_once(url, **part)
        time.sleep(pause)
    return _get_once(url, **part)


def _get_once(url: str, **part: int) -> bytes:
    with client(url) as (fs, path):
        # Otherwise s3fs asks for the size first, then gets ranges in parallel and retries none of them.
        one_get = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        data: bytes = fs.cat_file(path, **part, **one_get)
        return data


@contextmanager
def open_to_seek(url: str) -> Iterator[BinaryIO]:
    """Opens a file for random access: only the parts that are read are fetched.

    Any exception in the block other than a DenseCLIError counts as a failure to read.
    """
    with client(url) as (fs, path), fs.open(path, "rb", block_size=64 * 1024) as file:
        yield file


@contextmanager
def open_ranges(url: str) -> Iterator[Callable[[int, int], bytes]]:
    """Opens a file elsewhere for many small requests.

    Yields:
        Fetches that many bytes from an offset, in one request. Threads may share it, except for a file on the
        web.
    """
    if is_web(url):
        # Unlike `read_range`, this refuses a server that sends the whole file where a part was asked for.
        with client(url) as (fs, path), fs.open(path, "rb", cache_type="none") as file:

            def of_web(offset: int, size: int) -> bytes:
                file.seek(offset)
                data: bytes = file.read(size)
                return data

            yield of_web
        return
    signed = opened = signed_file(url)

    def fetch(offset: int, size: int) -> bytes:
        nonlocal signed
        if signed:
            with suppress(Exception):
                return signed.fetch(offset, size)
            # Whatever it was, the store's own client tries again, and has the words for it.
            signed = None
        return read_range(url, offset, size)

    try:
        yield fetch
    finally:
        if opened:
            opened.close()


def exists(url: str) -> bool:
    """Whether there is a file or a folder."""
    with client(url) as (fs, path):
        return bool(fs.exists(path))


def is_folder(url: str) -> bool:
    """Whether there is a folder; in an object store, whether anything is below that name."""
    with client(url) as (fs, path):
        return bool(fs.isdir(path))


def listdir(url: str) -> list[str]:
    """Sorted names in a folder, without temporary files; empty if there is no such folder."""
    with client(url) as (fs, path):
        # fsspec would ask for the size and the times of every file.
        names = _names(path) if isinstance(fs, LocalFileSystem) else list(_listing(url))
    return sorted(name for name in names if not is_temporary(name))


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def files(url: str) -> dict[str, File]:
    """The files of a folder by name, with temporary ones; empty if there is no such folder."""
    return {name: _file(entry) for name, entry in sorted(_listing(url).items()) if entry["type"] == "file"}


def file(url: str) -> File:
    """One file, in one request. Raises FileNotFoundError if there is none."""
    with client(url) as (fs, path):
        return _file(fs.info(path))


def temporary_files(url: str) -> dict[str, File]:
    """The temporary files of a folder by name. Asks for no other file where the file system can do so."""
    with client(url) as (fs, path):
        if isinstance(fs, LocalFileSystem):
            found = {}
            for name in filter(is_temporary, sorted(_names(path))):
                # Its writer may just have renamed it.
                with suppress(FileNotFoundError):
                    if (entry := fs.info(os.path.join(path, name)))["type"] == "file":
                        found[name] = _file(entry)
            return found
        if {"s3", "gs"}.isdisjoint([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
            return {name: each for name, each in files(url).items() if is_temporary(name)}
        entries = fs.find(path, prefix=TEMPORARY[0], detail=True)
    names = {entry["name"].rsplit("/", 1)[-1]: entry for entry in entries.values()}
    return {name: _file(entry) for name, entry in sorted(names.items()) if is_temporary(name)}


def _file(entry: dict[str, Any]) -> File:
    # Every file system has its own name for it.
    when = next(entry[word] for word in ("mtime", "LastModified", "created") if word in entry)
    return File(entry["size"], when.timestamp() if isinstance(when, datetime) else when)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is temporary: a writer is at work, or was killed."""
    return name.startswith(TEMPORARY[0]) and name.endswith(TEMPORARY[1])


def writer() -> str:
    """By which the temporary files of this process are known."""
    return _writer


def write_as(name: str) -> None:
    """Takes over the `writer` of the process that started this one and sweeps up behind it."""
    global _writer  # noqa: PLW0603
    _writer = name


def _listing(url: str) -> dict[str, dict[str, Any]]:
    """fsspec's entries of a folder by name."""
    with client(url) as (fs, path):
        try:
            entries = fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
    return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry for entry in entries}


def remove(url: str) -> None:
    """Removes one file. Raises FileNotFoundError if there is none and the file system can tell.

    Raises:
        DenseCLIError: It cannot be removed.
    """
    with client(url, "delete") as (fs, path):
        fs.rm_file(path)


def remove_folder(url: str) -> None:
    """Removes a folder and everything in it. Raises DenseCLIError if it cannot be removed."""
    with client(url, "delete") as (fs, path):
        fs.rm(path, recursive=True)


def write_atomic(url: str, data: bytes | memoryview | list[bytes]) -> None:
    """Writes or replaces a file so that readers see all of it or nothing, even after a power cut.

    Locally: a temporary file in the same folder, fsync, rename, fsync of the folder. Elsewhere: one put,
    which object stores publish as a whole.

    Args:
        url: Address of the file.
        data: Its content, whole or in parts.

    Raises:
        DenseCLIError: The file system is full, or cannot be written.
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
    temporary = os.path.join(folder, f"{TEMPORARY[0]}{name}.{_writer}-{uuid.uuid4().hex}{TEMPORARY[1]}")
    try:
        with open(temporary, "wb", buffering=_WRITTEN_AT_ONCE) as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    # The rename is durable only once the folder is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a local file that a user has named, whole or not at all; a device or a pipe at once.

    Raises:
        DenseCLIError: It cannot be written.
    """
    path = os.path.abspath(path)
    if path.startswith(("/dev/", "/proc/")) or (os.path.exists(path) and not os.path.isfile(path)):
        with client(path, "write"), open(path, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        # A link stays one.
        write_atomic(os.path.realpath(path), text.encode())
