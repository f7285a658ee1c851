"""Lists of addresses of photos: text, CSV, TSV, JSON lines or Parquet, in whatever state they come."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import parquet

from densecli.core.errors import DenseCLIError, damage_is_a_value_error

COLUMN = "url"
"""Name of the column that holds the addresses."""
LONGEST = 8192
"""Characters of an address; a longer one is cut to one more, by which it is known."""
HINT = (
    f"--data is a .parquet, .csv, .tsv or .jsonl file with a column {COLUMN}, or a text file with one "
    "address per line."
)
"""What a list is."""
# Bytes of the longest row.
_ROW = 1 << 24
# Rows that are read at once: each may be long.
_ROWS = 1024
# What readers raise on files that are damaged or something else.
_DAMAGED = (pa.ArrowException, csv.Error, ValueError, KeyError, MemoryError, RecursionError)


def read_addresses(file: str, stream: BinaryIO) -> Iterator[str]:
    """Reads a list.

    Args:
        file: Its name, which says what kind it is, for messages.
        stream: Its content.

    Yields:
        The addresses in the file's order, without white space around them. A row that has none is empty; an
        empty line of a text is no row.

    Raises:
        DenseCLIError: The file is not what its name says, or has no column of addresses.
    """
    read = _READERS.get(PurePath(file).suffix.lower(), _text)
    try:
        for entry in read(file, stream):
            yield _address(entry)
    except _DAMAGED as error:
        raise DenseCLIError(f"{file} is not a list of addresses ({error}).", hint=HINT) from error


def _address(entry: Any) -> str:
    text = entry.decode("utf-8", "replace") if isinstance(entry, bytes) else entry
    if not isinstance(text, str):
        return ""
    # JSON may hold halves of characters; a NUL separates addresses in memory.
    text = text[: LONGEST + 2].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.strip()[: LONGEST + 1]


def _text(_: str, stream: BinaryIO) -> Iterator[str]:
    return (line for line in _lines(stream, LONGEST + 2) if line.strip())


def _lines(stream: BinaryIO, longest: int) -> Iterator[str]:
    """The lines of a text, each cut after so many characters."""
    start = stream.read(2)
    stream.seek(0)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = io.TextIOWrapper(stream, encoding, errors="replace")
    continued = False
    while part := text.readline(longest):
        if not continued:
            yield part
        continued = not part.endswith("\n")


def _json_lines(file: str, stream: BinaryIO) -> Iterator[Any]:
    found, keys = False, ()
    for line in _lines(stream, _ROW):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        row = row if isinstance(row, dict) else {}
        found, keys = found or COLUMN in row, keys or tuple(row)
        yield row.get(COLUMN)
    if not found:
        raise _no_column(file, keys)


def _parquet(file: str, stream: BinaryIO) -> Iterator[Any]:
    with damage_is_a_value_error():
        table = parquet.ParquetFile(stream)
    schema = table.schema_arrow
    if COLUMN not in schema.names:
        raise _no_column(file, schema.names)
    kind = schema.field(schema.names.index(COLUMN)).type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    binaries = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    if not any(is_kind(values) for is_kind in (*texts, *binaries)):
        raise DenseCLIError(f"The column {COLUMN} of {file} holds {kind}, not texts.", hint=HINT)
    batches = table.iter_batches(batch_size=_ROWS, columns=[COLUMN])
    while True:
        with damage_is_a_value_error():
            batch = next(batches, None)
        if batch is None:
            return
        # As bytes: nothing has checked that they are UTF-8.
        column = batch.column(0)
        column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        yield from column.cast(pa.large_binary()).to_pylist()


def _csv(file: str, stream: BinaryIO) -> Iterator[str]:
    return _delimited(file, stream, ",")


def _tsv(file: str, stream: BinaryIO) -> Iterator[str]:
    return _delimited(file, stream, "\t")


def _delimited(file: str, stream: BinaryIO, delimiter: str) -> Iterator[str]:
    # Python's limit, for the whole process, is below what a row may hold.
    csv.field_size_limit(max(csv.field_size_limit(), _ROW))
    rows = filter(None, csv.reader(_lines(stream, _ROW), delimiter=delimiter))
    names = next(rows, [])
    if COLUMN not in names:
        raise _no_column(file, names)
    place = names.index(COLUMN)
    for row in rows:
        # A row of another length has a delimiter too many, or is cut: nobody knows where its address is.
        yield row[place] if len(row) == len(names) else ""


def _no_column(file: str, names: Iterable[str]) -> DenseCLIError:
    shown = ", ".join(map(repr, names)) or "none"
    return DenseCLIError(
        f"{file} has no column {COLUMN!r}; its columns: {shown}.",
        hint=f"Call the column of addresses {COLUMN}.",
    )


_READERS = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _tsv,
    ".json": _json_lines,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
