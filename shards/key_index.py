"""The index of the photos' keys: in which shard a key is, by one read of a part of a sorted file."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.key_share import HASH_BITS, KeyRange, hashes_of_keys, within_all

FILE = "keys.npy"
"""Name of the file in the folder of the images column."""
_SHARD_BITS = 64 - HASH_BITS
_SHARDS = np.uint64((1 << _SHARD_BITS) - 1)
# numpy writes the description of a flat array into so many bytes.
_HEADER = 128


def key_hashes(keys: Sequence[str], shard: int) -> np.ndarray:
    """(n,) uint64, the entries of a shard's keys: 40 bits of a key's XXH3-64, then the shard's number."""
    return (hashes_of_keys(keys) << np.uint64(_SHARD_BITS)) | np.uint64(shard)


def index_bytes(samples: int) -> int:
    """Size of the file of so many keys."""
    return _HEADER + 8 * samples


@dataclass(frozen=True, eq=False)
class KeyIndex:
    """Sorted entries of `key_hashes`, as a file that `np.load` reads."""

    data: bytes

    @classmethod
    def of(cls, hashes: Sequence[np.ndarray]) -> "KeyIndex":
        """The index of the entries of all shards."""
        entries = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes])).astype("<u8")
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, entries, version=(1, 0), allow_pickle=False)
        return cls(buffer.getvalue())

    @property
    def digest(self) -> str:
        """xxh3-64 of the file, as hex."""
        return xxhash.xxh3_64_hexdigest(self.data)

    def write(self, folder: str) -> None:
        """Writes the file. Raises DenseCLIError if it cannot be written."""
        fs.write_atomic(fs.join(folder, FILE), self.data)


def shards_with(folder: str, key: str, *, samples: int, shards: int, digest: str) -> list[int]:
    """Numbers of the shards that may hold a key: rarely more than one, and none if no shard holds it.

    Entries are spread evenly, so the place of a key is known within a few times the square root of their
    number, and one read of that part finds it. That a key is missing is said after a second read, of the
    whole file, which must have the right checksum.

    Args:
        folder: The folder of the images column.
        key: The key to find.
        samples: Number of keys in the index.
        shards: Number of shards of the store.
        digest: Checksum of the file, which the manifest holds.

    Raises:
        DenseCLIError: The index is gone or damaged.
    """
    url = fs.join(folder, FILE)
    first = int(key_hashes([key], 0)[0])
    place, margin = (first * samples) >> 64, 4 * math.isqrt(samples) + 64
    low, high = max(0, place - margin), min(samples, place + margin)
    try:
        part = fs.read_range(url, _HEADER + 8 * low, 8 * (high - low))
        if found := _among(part[: len(part) // 8 * 8], first, shards):
            return found
    except FileNotFoundError:
        pass
    return _among(_read_whole(folder, samples=samples, digest=digest), first, shards)


def samples_within(
    folder: str, subsets: Sequence[Sequence[KeyRange]], *, samples: int, shards: int, digest: str
) -> np.ndarray:
    """(subsets, shards) int32, how many samples of each shard have a key in all ranges of each subset.

    Args:
        folder: See `shards_with`.
        subsets: The ranges of each subset.
        samples: See `shards_with`.
        shards: See `shards_with`.
        digest: See `shards_with`.

    Raises:
        DenseCLIError: The index is gone or damaged.
    """
    entries = np.frombuffer(_read_whole(folder, samples=samples, digest=digest), "<u8")
    hashes, numbers = entries >> np.uint64(_SHARD_BITS), (entries & _SHARDS).astype(np.int64)
    counts = [np.bincount(numbers[within_all(hashes, ranges)], minlength=shards) for ranges in subsets]
    return np.array(counts, np.int32)


def _read_whole(folder: str, *, samples: int, digest: str) -> bytes:
    """The entries. Raises DenseCLIError if the file is not the one with this checksum."""
    url, size = fs.join(folder, FILE), index_bytes(samples)
    try:
        whole = fs.read_range(url, 0, size + 1)
    except FileNotFoundError:
        whole = b""
    if len(whole) != size or xxhash.xxh3_64_hexdigest(whole) != digest:
        raise DenseCLIError(
            f"The index {url} is {'damaged' if whole else 'gone'}.",
            hint=f"Delete {folder}/manifest.parquet and run the build again: it writes both anew.",
        )
    return whole[_HEADER:]


def _among(data: bytes, first: int, shards: int) -> list[int]:
    entries = np.frombuffer(data, "<u8")
    matching = entries[(entries & ~_SHARDS) == np.uint64(first)] & _SHARDS
    return [int(shard) for shard in matching if shard < shards]
