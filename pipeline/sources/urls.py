"""Photos listed by their addresses: on web servers, in object stores, or in files."""

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
import xxhash

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.lazy_sequence import LazySequence
from densecli.core.passed_over import PassedOver
from densecli.pipeline.sources.address_lists import HINT, read_addresses
from densecli.pipeline.sources.address_loader import AddressLoader
from densecli.pipeline.sources.base import Item, Source, SourceRequest, Span
from densecli.pipeline.sources.cut import WINDOW
from densecli.shards.datasets import DATASETS, Dataset

BLOCK = 4096
"""Number of addresses that are compressed together."""


class Addresses(LazySequence[Item]):
    """The first `limit` addresses without repetitions, compressed in memory. A key is the address's hash.

    Attributes:
        passed: Rows of the list that give no photo.
    """

    def __init__(self, urls: Iterable[str], limit: int | None) -> None:
        self.passed = PassedOver()
        self._blocks: list[bytes] = []
        hashes, whole = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        kept = self._with_address(urls)
        while block := list(islice(kept, BLOCK)):
            self._blocks.append(zlib.compress("\0".join(block).encode(), level=1))
            hashes.append(np.array([_hash(fs.public(url)) for url in block], np.uint64))
            whole.append(np.array([_hash(url) for url in block], np.uint64))
        self._hashes = np.concatenate(hashes)
        _, first, group = np.unique(self._hashes, return_index=True, return_inverse=True)
        self._rows = np.sort(first)[:limit]
        # The photos of a shard are neighbours, or in blocks that are shuffled together.
        self._block = lru_cache(maxsize=2 + 2 * WINDOW // BLOCK)(self._unpack)
        addresses = np.concatenate(whole)
        equal = addresses == addresses[first[group]]
        for row in np.setdiff1d(np.arange(len(self._hashes)), first).tolist():
            # Keys leave out what may be secret.
            reason = "repeated" if equal[row] else "repeated but for a query or a password"
            self.passed.add(reason, self._item(row).ref)

    @property
    def blocks(self) -> list[int]:
        """Number of addresses that are taken of each compressed block."""
        counts: list[int] = np.bincount(self._rows // BLOCK).tolist()
        return counts

    @property
    def digest(self) -> str:
        """sha256 of the keys, in hex."""
        return hashlib.sha256(self._hashes[self._rows].tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, i: int) -> Item:
        """See `LazySequence.at`."""
        return self._item(int(self._rows[i]))

    def _with_address(self, urls: Iterable[str]) -> Iterator[str]:
        for number, url in enumerate(urls, start=1):
            if url:
                yield url
            else:
                self.passed.add("without an address", f"row {number}")

    def _item(self, row: int) -> Item:
        url = self._block(row // BLOCK)[row % BLOCK]
        return Item(key=f"{self._hashes[row]:016x}", ref=fs.public(url), photo=Span(url))

    def _unpack(self, block: int) -> list[str]:
        return zlib.decompress(self._blocks[block]).decode().split("\0")


def urls_source(request: SourceRequest) -> Source:
    """Lists the photos that a file names, in the file's order. EXIF orientation is applied.

    Args:
        request: `data` is the file: .parquet, .csv, .tsv or .jsonl with a column `url`, or text with one
            address per line. `web` says which addresses may be read.

    Raises:
        DenseCLIError: The file is missing or lists no address, or a split is asked for.
    """
    file = request.data
    if request.split:
        raise DenseCLIError(
            "A list of addresses has no splits.", hint="Make one list for each split, and leave --split out."
        )
    try:
        with fs.open_to_seek(file) as stream:
            items = Addresses(read_addresses(file, stream), request.limit)
    except FileNotFoundError as error:
        raise DenseCLIError(f"There is no file {file} with the addresses of photos.", hint=HINT) from error
    if not items:
        raise DenseCLIError(f"{file} lists no photo.", hint=HINT)
    return Source(
        name="urls",
        split="",
        digest=items.digest,
        items=items,
        load=AddressLoader(folder=os.path.dirname(file), web=request.web, max_pixels=request.max_pixels),
        blocks=items.blocks,
        passed=items.passed,
    )


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


DATASETS.add(
    "urls",
    Dataset(source=urls_source),
    help="A list of addresses: .parquet, .csv, .tsv or .jsonl with a column url, or a text file.",
)
