"""Reads the tar of one shard of a column, checked against its receipt."""

import mmap
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import xxhash

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.keys import keys_digest
from densecli.shards.receipts import BLOCK, NAME_BYTES, SIZE_FIELD, Receipt

# A USTAR header has the kind of file and, of a long name, what comes before it.
_KIND, _PREFIX, _REGULAR = 156, 345, (0, ord("0"))

Sample = tuple[str, dict[str, bytes]]
Buffer = bytes | mmap.mmap

_REBUILD = "Delete the receipt {receipt} and run the build again: it redoes this shard only."

# Nanoseconds: a file changed later than this before it was read may change again and keep its time.
_SETTLED = 2_000_000_000


class Seal(NamedTuple):
    """By which a tar is known to be the one that was written: its size and its xxh3-64."""

    bytes: int
    xxh3: int

    def fits(self, data: Buffer) -> bool:
        """Whether these are the bytes of that tar."""
        return len(data) == self.bytes and xxhash.xxh3_64_intdigest(data) == self.xxh3


@dataclass(frozen=True)
class Index:
    """Where a tar has its samples.

    Attributes:
        keys: The N keys in order, each followed by a newline. Equal ones are one object.
        places: (N, 2) int64 for each extension: first byte and size of the member of each sample, -1 where
            it has none.
        derived: What readers have found in the members of each sample, and need again in every epoch.
    """

    keys: str
    places: dict[str, np.ndarray]
    derived: dict[Any, list[Any]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def samples(self) -> list[str]:
        """The keys."""
        return self.keys.split("\n")[:-1]

    @property
    def members(self) -> int:
        """The number of members."""
        return sum(map(len, self.places.values()))


class VerifiedTars:
    """Indices of the local tars that this process has verified. Threads may share it.

    A tar is known by its path, size, time of change, inode and device.
    """

    def __init__(self, max_members: int) -> None:
        """Remembers tars of at most `max_members` members in all, those verified first: 16 bytes each."""
        self._max, self._members = max_members, 0
        self._known: dict[str, tuple[fs.Stamp, Index]] = {}
        self._lock = Lock()

    def find(self, path: str, stamp: fs.Stamp | None) -> Index | None:
        """The index of a tar that was verified as it is now."""
        known = self._known.get(path)
        return known[1] if known and known[0] == stamp else None

    def add(self, path: str, stamp: fs.Stamp | None, index: Index) -> None:
        """Remembers a verified tar, unless it may change again without showing it."""
        if stamp is None or time.time_ns() - stamp.modified_ns < _SETTLED:
            return
        with self._lock:
            _, old = self._known.pop(path, (None, None))
            self._members -= old.members if old else 0
            if self._members + index.members <= self._max:
                self._known[path] = stamp, index
                self._members += index.members


VERIFIED = VerifiedTars(max_members=8_000_000)


@dataclass(frozen=True)
class OpenTar:
    """A verified tar, and where it has its samples."""

    data: memoryview
    index: Index


def read_shard(column: Column, shard: str) -> list[Sample]:
    """The samples of one shard in order, as (key, bytes by extension).

    Raises:
        DenseCLIError: See `read_tar` and `index_of`.
    """
    column, shard = column.locate(shard)
    data, receipt = read_tar(column, shard)
    index = index_of(column, shard, receipt)
    places = {extension: places.tolist() for extension, places in index.places.items()}
    return [
        (key, {e: data[each[row][0] : sum(each[row])] for e, each in places.items() if each[row][0] >= 0})
        for row, key in enumerate(index.samples)
    ]


def open_tar(column: Column, shard: str, cache: Cache | None = None, seal: Seal | None = None) -> OpenTar:
    """Opens a shard's tar.

    Whole tars are compared with their seal or their receipt, but a local one, also one in the cache, only
    once a process: as long as it is the same file, the next epoch takes it as it is.

    Args:
        column: Column of the shard.
        shard: Its name.
        cache: Keeps the tar if the store is remote.
        seal: What the column's manifest says of the tar. If it is this tar, its receipt is not read.

    Raises:
        DenseCLIError: See `read_tar` and `index_of`.
    """
    column, shard = column.locate(shard)
    tar = column.tar_url(shard)
    if fs.is_local(tar) and (known := _reopened(tar)):
        return known
    if seal and (found := _sealed(column, shard, cache, seal)):
        return found
    mapped, path, receipt = _verified(column, shard, cache)
    index = VERIFIED.find(path, mapped.stamp) or index_of(column, shard, receipt)
    VERIFIED.add(path, mapped.stamp, index)
    return OpenTar(memoryview(mapped.data), index)


def _reopened(path: str) -> OpenTar | None:
    """A local tar that this process has verified before."""
    try:
        data, stamp = fs.map_file(path)
    except FileNotFoundError:
        return None
    index = VERIFIED.find(path, stamp)
    if index is None:
        return None
    # Nothing reads it whole now. So the disk is asked for it ahead of its use.
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
        data.madvise(mmap.MADV_WILLNEED)
    return OpenTar(memoryview(data), index)


def _sealed(column: Column, shard: str, cache: Cache | None, seal: Seal) -> OpenTar | None:
    """A tar that is the one with this seal, read by its own headers; None for one that its receipt is for."""
    try:
        mapped, path = _fetch(column, shard, seal, cache)
        index = VERIFIED.find(path, mapped.stamp)
        if index is None:
            # What comes from the cache has been compared.
            if path == column.tar_url(shard) and not seal.fits(mapped.data):
                return None
            index = index_of_headers(mapped.data)
    except (FileNotFoundError, ValueError):
        return None
    VERIFIED.add(path, mapped.stamp, index)
    return OpenTar(memoryview(mapped.data), index)


def index_of(column: Column, shard: str, receipt: Receipt) -> Index:
    """Where a tar has its samples. Raises DenseCLIError if the receipt contradicts itself."""
    names, places = list(receipt.members), _places(receipt.members)
    order = np.argsort(places[:, 0])
    with suppress(ValueError):
        index = _index([names[member] for member in order.tolist()], places[order])
        keys = index.samples
        if len(keys) == receipt.samples and keys_digest(keys) == receipt.keys_digest:
            return index
    url = column.receipt_url(shard)
    raise DenseCLIError(
        f"The receipt {url} lists other samples than it counts.", hint=_REBUILD.format(receipt=url)
    )


def index_of_headers(data: Buffer) -> Index:
    """Where a tar has its samples, by its headers. Raises ValueError for one that no `ShardWriter` writes."""
    offset, end = 0, len(data) - 2 * BLOCK
    headers, firsts, sizes = list[bytes](), list[int](), list[int]()
    while offset < end:
        header = data[offset : offset + BLOCK]
        if not header[0]:
            break
        size = int(header[SIZE_FIELD], 8)
        if not 0 <= size < end:
            raise ValueError("a member lies outside of the tar")
        offset += BLOCK
        headers.append(header)
        firsts.append(offset)
        sizes.append(size)
        offset += -(-size // BLOCK) * BLOCK
    if offset > end or len(data) % BLOCK:
        raise ValueError("it has no end")
    blocks = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, BLOCK)
    if not np.isin(blocks[:, _KIND], _REGULAR).all() or blocks[:, _PREFIX].any():
        raise ValueError("it holds something else than regular files")
    # Such elements are read without the zeros behind them.
    names = np.frombuffer(blocks[:, :NAME_BYTES].tobytes(), f"S{NAME_BYTES}").tolist()
    return _index([name.decode() for name in names], np.array([firsts, sizes], np.int64).T)


def _index(names: Sequence[str], places: np.ndarray) -> Index:
    """The index of members in the order of the tar.

    Args:
        names: Their names.
        places: (M, 2) int64: first byte and size.

    Raises:
        ValueError: A name is there twice, or a key has more than one line.
    """
    if len(set(names)) < len(names):
        raise ValueError("a member is there twice")
    if names and (index := _regular(names, places)):
        return index
    parts = [name.partition(".") for name in names]
    rows: dict[str, int] = {}
    found: dict[str, tuple[list[int], list[int]]] = {}
    for member, (key, _, extension) in enumerate(parts):
        of_extension = found.setdefault(extension, ([], []))
        of_extension[0].append(rows.setdefault(key, len(rows)))
        of_extension[1].append(member)
    index = Index(_lines(rows), {})
    for extension, (of_rows, members) in found.items():
        index.places[extension] = np.full((len(rows), 2), -1)
        index.places[extension][of_rows] = places[members]
    return index


def _regular(names: Sequence[str], places: np.ndarray) -> Index | None:
    """The index of a tar as it is written: every sample has the same extensions, side by side. Else None."""
    first = names[0].partition(".")[0] + "."
    width = next((i for i, name in enumerate(names) if not name.startswith(first)), len(names))
    extensions = [name[len(first) :] for name in names[:width]]
    if not extensions:
        return None
    behind = len(extensions[0]) + 1
    keys = [name[:-behind] for name in names[::width]]
    if len(set(keys)) < len(keys) or "." in "".join(keys):
        return None
    if any(names[i::width] != [f"{key}.{e}" for key in keys] for i, e in enumerate(extensions)):
        return None
    return Index(_lines(keys), {e: places[i::width] for i, e in enumerate(extensions)})


def _lines(keys: Collection[str]) -> str:
    """Keys with a newline behind each, as one object for equal ones. Raises ValueError if they have some."""
    text = "\n".join([*keys, ""])
    if text.count("\n") != len(keys):
        raise ValueError("a key has more than one line")
    return sys.intern(text)


def _places(members: Mapping[str, tuple[int, int]]) -> np.ndarray:
    """(M, 2) int64: first byte and size of each member."""
    return np.fromiter(chain.from_iterable(members.values()), np.int64, 2 * len(members)).reshape(-1, 2)


def read_tar(column: Column, shard: str, cache: Cache | None = None) -> tuple[Buffer, Receipt]:
    """A shard's whole tar and its receipt.

    Args:
        column: Column of the shard.
        shard: Its name.
        cache: Keeps the tar if the store is remote.

    Raises:
        DenseCLIError: The shard is not built, or its tar is not the one that the receipt describes.
    """
    mapped, _, receipt = _verified(column, shard, cache)
    return mapped.data, receipt


def _verified(column: Column, shard: str, cache: Cache | None) -> tuple[fs.Mapped, str, Receipt]:
    """A shard's whole tar, where it is (in the store or in the cache), and its receipt. See `read_tar`."""
    tar, receipt_url = column.tar_url(shard), column.receipt_url(shard)
    receipt = column.receipt(shard)
    if receipt is None:
        if fs.exists(tar):
            raise DenseCLIError(
                f"The shard {tar} has no receipt: its build was interrupted before the end.",
                hint="Run the same build again: it redoes this shard only.",
            )
        raise DenseCLIError(
            f"The shard {tar} has not been built.",
            hint="Run the build of this column again: it continues there.",
        )
    rebuild = _REBUILD.format(receipt=receipt_url)
    try:
        mapped, path = _fetch(column, shard, Seal(receipt.bytes, int(receipt.xxh3, 16)), cache)
    except FileNotFoundError as error:
        raise DenseCLIError(f"The shard {tar} is gone, but its receipt is there.", hint=rebuild) from error
    # What comes from the cache has been compared.
    if path == tar and (trouble := _difference(mapped.data, receipt)):
        raise DenseCLIError(f"The shard {tar} {trouble}.", hint=rebuild)
    if not _has_members(mapped.data, receipt.members):
        raise DenseCLIError(f"The receipt {receipt_url} lists other members than its tar has.", hint=rebuild)
    return mapped, path, receipt


def _has_members(data: Buffer, members: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a tar has headers with these names and sizes at these places."""
    if not members:
        return True
    names = b"".join(name.encode().ljust(NAME_BYTES, b"\0") for name in members)
    sizes = b"".join(b"%011o" % size for _, size in members.values())
    if len(names) != len(members) * NAME_BYTES:
        return False
    headers = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), SIZE_FIELD.stop)[
        _places(members)[:, 0] - BLOCK
    ]
    found = headers[:, :NAME_BYTES].tobytes(), headers[:, SIZE_FIELD].tobytes()
    return found == (names, sizes)


def _fetch(column: Column, shard: str, seal: Seal, cache: Cache | None) -> tuple[fs.Mapped, str]:
    """A tar, and where it is. One that comes from the cache has this seal."""
    tar = column.tar_url(shard)
    name = Cache.name(column.key, shard, f"{seal.xxh3:016x}")
    if cache is None or fs.is_local(tar) or not cache.keeps(name):
        return fs.map_file(tar), tar
    path = str(cache.folder / name)
    with cache.alone(name):
        kept = cache.get(name)
        if kept and (VERIFIED.find(path, kept.stamp) or seal.fits(kept.data)):
            return kept, path
        data = fs.read_bytes(tar)
        if seal.fits(data):
            cache.put(name, data)
        return fs.Mapped(data, None), tar


def _difference(data: Buffer, receipt: Receipt) -> str:
    """How the tar differs from its receipt, as the end of a sentence; empty if it does not."""
    if len(data) == receipt.bytes:
        same = xxhash.xxh3_64_hexdigest(data) == receipt.xxh3
        return "" if same else "has changed since it was written: its checksum is another"
    if not data:
        return f"is empty, not {receipt.bytes} bytes"
    if len(data) > receipt.bytes:
        return f"is longer than its receipt says: {len(data)}, not {receipt.bytes} bytes"
    ends = [-(-(offset + size) // BLOCK) * BLOCK for offset, size in receipt.members.values()]
    if len(data) in ends:
        whole = sum(end <= len(data) for end in ends)
        return f"was cut between two members: {whole} of {len(ends)} are there"
    return f"was cut: {len(data)} of {receipt.bytes} bytes are there"
