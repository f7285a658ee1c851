"""A list of photos by their addresses, in object stores or anywhere else that fsspec reads from."""

from collections.abc import Sequence
from typing import overload
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pyarrow import csv, parquet

from pipeline.sources.base import Item, Source, Span, listing_digest
from pipeline.sources.photos import PhotoLoader
from shards import fs
from shards.errors import DenseCLIError

COLUMN = "url"
_HINT = "--data is a .parquet or .csv file with a column url, or a text file with an address a line."


class Addresses(Sequence[Item]):
    """The first `limit` of `urls`, without repetitions; a key is the hash of the address."""

    def __init__(self, urls: pa.ChunkedArray, limit: int | None) -> None:
        hashes = np.fromiter((_hash(public(url.as_py())) for url in urls), np.uint64, len(urls))
        _, first = np.unique(hashes, return_index=True)
        self._rows = np.sort(first)[:limit]
        self._urls = urls

    @property
    def digest(self) -> str:
        return listing_digest(item.ref for item in self)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self._item(url.as_py()) for url in self._urls.take(self._rows[index])]
        return self._item(self._urls[int(self._rows[index])].as_py())

    def _item(self, url: str) -> Item:
        ref = public(url)
        return Item(key=f"{_hash(ref):016x}", ref=ref, photo=Span(url))


def urls_source(file: str, split: str | None = None, limit: int | None = None) -> Source:
    """The photos that a file lists, in its order.

    EXIF orientation is applied. Raises DenseCLIError where there is no file, and no address in it.
    """
    if split:
        raise DenseCLIError(
            "A list of addresses has no splits.", hint="Make a list of each, and leave --split out."
        )
    items = Addresses(_read(file), limit)
    if not items:
        raise DenseCLIError(f"{file} lists no photo.", hint=_HINT)
    return Source(
        name="urls", split="", digest=items.digest, items=items, load=PhotoLoader(root="", upright=True)
    )


def public(url: str) -> str:
    """An address as it may be written down: of http, without user and query, which carry credentials."""
    if not url.startswith(("http://", "https://")):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def _read(file: str) -> pa.ChunkedArray:
    try:
        with fs.open_to_seek(file) as stream:
            if file.endswith(".parquet"):
                table = parquet.read_table(stream, columns=[COLUMN])
            elif file.endswith(".csv"):
                options = csv.ConvertOptions(include_columns=[COLUMN], column_types={COLUMN: pa.string()})
                table = csv.read_csv(stream, convert_options=options)
            else:
                # No byte of a text file ends a line before its end.
                whole_lines = csv.ParseOptions(delimiter="\x01", quote_char=False)
                names = csv.ReadOptions(column_names=[COLUMN])
                types = csv.ConvertOptions(column_types={COLUMN: pa.string()})
                table = csv.read_csv(stream, names, whole_lines, types)
    except FileNotFoundError as error:
        raise DenseCLIError(f"There is no file {file} with the addresses of photos.", hint=_HINT) from error
    except (pa.ArrowInvalid, KeyError) as error:
        raise DenseCLIError(f"{file} is not a list of addresses.", hint=_HINT) from error
    urls = table[COLUMN]
    return urls.filter(pc.not_equal(pc.fill_null(urls, ""), ""))
