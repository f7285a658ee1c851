"""Photos listed by their addresses, on web servers, in object stores or wherever fsspec reads from."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import BinaryIO, overload

import numpy as np
import pyarrow as pa
import xxhash
from pyarrow import csv, parquet

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.base import Item, Source, SourceRequest, Span
from densecli.pipeline.sources.photos import PhotoLoader
from densecli.shards.datasets import DATASETS, Dataset

COLUMN = "url"
"""Name of the column that holds the addresses."""
BLOCK = 4096
"""Number of addresses that are compressed together."""
_HINT = "--data is a .parquet or .csv file with a column url, or a text file with one address per line."


class Addresses(Sequence[Item]):
    """The first `limit` addresses without repetitions, compressed in memory. A key is the address's hash."""

    def __init__(self, urls: Iterator[str], limit: int | None) -> None:
        self._blocks: list[bytes] = []
        hashes = [np.zeros(0, np.uint64)]
        while block := list(islice(urls, BLOCK)):
            self._blocks.append(zlib.compress("\0".join(block).encode(), level=1))
            hashes.append(np.array([_hash(fs.public(url)) for url in block], np.uint64))
        self._hashes = np.concatenate(hashes)
        _, first = np.unique(self._hashes, return_index=True)
        self._rows = np.sort(first)[:limit]
        # The photos of a shard are neighbours.
        self._block = lru_cache(maxsize=2)(self._unpack)

    @property
    def digest(self) -> str:
        """sha256 of the keys, in hex."""
        return hashlib.sha256(self._hashes[self._rows].tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self._item(row) for row in self._rows[index].tolist()]
        return self._item(int(self._rows[index]))

    def _item(self, row: int) -> Item:
        url = self._block(row // BLOCK)[row % BLOCK]
        return Item(key=f"{self._hashes[row]:016x}", ref=fs.public(url), photo=Span(url))

    def _unpack(self, block: int) -> list[str]:
        return zlib.decompress(self._blocks[block]).decode().split("\0")


def urls_source(request: SourceRequest) -> Source:
    """Lists the photos that a file names, in the file's order. EXIF orientation is applied.

    Args:
        request: `data` is the file: .parquet or .csv with a column `url`, or text with one address per line.

    Raises:
        DenseCLIError: The file is missing or lists no address, or a split is asked for.
    """
    file = request.data
    if request.split:
        raise DenseCLIError(
            "A list of addresses has no splits.", hint="Make one list per split, and leave --split out."
        )
    try:
        with fs.open_to_seek(file) as stream:
            try:
                items = Addresses(_read(file, stream), request.limit)
            except (pa.ArrowInvalid, KeyError) as error:
                raise DenseCLIError(f"{file} is not a list of addresses.", hint=_HINT) from error
    except FileNotFoundError as error:
        raise DenseCLIError(f"There is no file {file} with the addresses of photos.", hint=_HINT) from error
    if not items:
        raise DenseCLIError(f"{file} lists no photo.", hint=_HINT)
    return Source(
        name="urls",
        split="",
        digest=items.digest,
        items=items,
        load=PhotoLoader(root="", upright=True, max_pixels=request.max_pixels),
    )


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def _read(name: str, stream: BinaryIO) -> Iterator[str]:
    types = csv.ConvertOptions(include_columns=[COLUMN], column_types={COLUMN: pa.string()})
    batches: Iterable[pa.RecordBatch]
    if name.endswith(".parquet"):
        batches = parquet.ParquetFile(stream).iter_batches(columns=[COLUMN])
    elif name.endswith(".csv"):
        batches = csv.open_csv(stream, convert_options=types)
    else:
        # A delimiter that no address contains: each line is one value.
        lines = csv.ParseOptions(delimiter="\x01", quote_char=False)
        batches = csv.open_csv(stream, csv.ReadOptions(column_names=[COLUMN]), lines, types)
    for batch in batches:
        yield from filter(None, batch[COLUMN].to_pylist())


DATASETS.add(
    "urls",
    Dataset(source=urls_source),
    help="A list of addresses: .parquet or .csv with a column url, or a text file.",
)
