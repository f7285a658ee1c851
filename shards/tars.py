"""Reads the tar of one shard of a column, checked against its receipt."""

import mmap
from operator import itemgetter

import xxhash

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.keys import keys_digest
from densecli.shards.receipts import BLOCK, NAME_BYTES, SIZE_FIELD, Receipt

Sample = tuple[str, dict[str, bytes]]
Buffer = bytes | mmap.mmap
Places = dict[str, dict[str, tuple[int, int]]]
"""Where a tar has the members of each sample: {key: {extension: (first byte, size)}}."""
OpenTar = tuple[memoryview, Places]

_REBUILD = "Delete the receipt {receipt} and run the build again: it redoes this shard only."


def read_shard(column: Column, shard: str) -> list[Sample]:
    """The samples of one shard in order, as (key, bytes by extension).

    Raises:
        DenseCLIError: See `read_tar` and `places_of`.
    """
    data, receipt = read_tar(column, shard)
    return [
        (key, {extension: data[first : first + size] for extension, (first, size) in places.items()})
        for key, places in places_of(column, shard, receipt).items()
    ]


def open_tar(column: Column, shard: str, cache: Cache | None = None) -> OpenTar:
    """A shard's tar and where it has its samples. Raises the errors of `read_shard`."""
    data, receipt = read_tar(column, shard, cache)
    return memoryview(data), places_of(column, shard, receipt)


def places_of(column: Column, shard: str, receipt: Receipt) -> Places:
    """Where a tar has its samples, in order. Raises DenseCLIError if the receipt contradicts itself."""
    places: Places = {}
    for name, place in sorted(receipt.members.items(), key=itemgetter(1)):
        key, extension = name.split(".", 1)
        places.setdefault(key, {})[extension] = place
    if len(places) != receipt.samples or keys_digest(list(places)) != receipt.keys_digest:
        url = column.receipt_url(shard)
        raise DenseCLIError(
            f"The receipt {url} lists other samples than it counts.", hint=_REBUILD.format(receipt=url)
        )
    return places


def read_tar(column: Column, shard: str, cache: Cache | None = None) -> tuple[Buffer, Receipt]:
    """A shard's whole tar and its receipt.

    Args:
        column: Column of the shard.
        shard: Its name.
        cache: Keeps the tar if the store is remote.

    Raises:
        DenseCLIError: The shard is not built, or its tar is not the one that the receipt describes.
    """
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
        data = _fetch(tar, receipt, cache)
    except FileNotFoundError as error:
        raise DenseCLIError(f"The shard {tar} is gone, but its receipt is there.", hint=rebuild) from error
    if trouble := _difference(data, receipt):
        raise DenseCLIError(f"The shard {tar} {trouble}.", hint=rebuild)
    for name, (first, size) in receipt.members.items():
        if not _is_header(data[first - BLOCK : first], name.encode(), size):
            raise DenseCLIError(
                f"The receipt {receipt_url} lists other members than its tar has.", hint=rebuild
            )
    return data, receipt


def _is_header(block: bytes, name: bytes, size: int) -> bool:
    """Whether a block of a tar is the header of a member with this name and size."""
    return block[:NAME_BYTES] == name.ljust(NAME_BYTES, b"\0") and block[SIZE_FIELD] == b"%011o" % size


def _fetch(tar: str, receipt: Receipt, cache: Cache | None) -> Buffer:
    name = Cache.name(receipt.column, receipt.shard, receipt.xxh3)
    if cache is None or fs.is_local(tar) or not cache.keeps(name):
        return fs.map_bytes(tar)
    with cache.alone(name):
        kept = cache.get(name)
        if kept is not None and not _difference(kept, receipt):
            return kept
        data = fs.read_bytes(tar)
        if not _difference(data, receipt):
            cache.put(name, data)
        return data


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
