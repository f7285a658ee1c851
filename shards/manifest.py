"""The manifest of a finished column: what its receipts say of each shard and in total, in one small file.

The receipts stay the truth. A build withdraws the manifest before it changes the column, and publishes
another at its end, so that a reader needs one request where the receipts take one a shard.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import xxhash

from densecli.core import fs
from densecli.core.documents import check, parse
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.shards.column import Column
from densecli.shards.key_index import index_bytes
from densecli.shards.keys import canonical_json
from densecli.shards.parquet_footer import codecs_of
from densecli.shards.parted_column import PartedColumn
from densecli.shards.receipts import Receipt

FILE = "manifest.parquet"
"""Name of the file in the column's folder."""
_VERSION = 1
_METADATA = b"densecli"
# Bytes of the largest file that is read: 43 a shard are written, and the totals.
_MOST, _MOST_A_SHARD = 1 << 20, 64
# Manifests of parts that are read at the same time, and how many may wait.
_THREADS, _WINDOW = 16, 64


class Run(TypedDict):
    """How the build went: what another build of the same column may change."""

    seconds: dict[str, float]
    gpu_seconds: float
    receipt_bytes: int
    """Total size of the receipts."""


class Totals(TypedDict):
    """What the receipts of a column say together."""

    skipped: dict[str, int]
    error: dict[str, float]
    """The codec's error: the largest of every `max_NAME`, the mean over the samples of every other."""
    run: Run


class ErrorTotals:
    """Combines errors as they come; some are measured on some of the shards alone."""

    def __init__(self) -> None:
        """Of nothing."""
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._weights = Counter[str]()

    def add(self, errors: Mapping[str, float], samples: int) -> None:
        """Adds errors that are those of so many samples."""
        for name, value in errors.items():
            before = self._sums[name]
            self._sums[name] = max(before, value) if name.startswith("max_") else before + value * samples
            self._weights[name] += samples

    def totals(self) -> dict[str, float]:
        """The largest of every `max_NAME`, the mean over the samples of every other."""
        return {
            name: float(value if name.startswith("max_") else value / max(1, self._weights[name]))
            for name, value in self._sums.items()
        }


class _Document(TypedDict):
    version: Literal[1]
    column: str
    totals: Totals
    keys_index: NotRequired[str]
    digest: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """What the receipts of a column say, as arrays over its m built shards in order.

    Attributes:
        shards: (m,) int64 numbers of the shards. A file holds finished columns only: all shards of the store.
        samples: (m,) int32 numbers of samples.
        tar_bytes: (m,) int64 sizes of the tars.
        xxh3: (m,) uint64 checksums of the tars.
        keys_digest: (m, 32) uint8 sha256 digests of the sample keys.
        totals: What they say together.
        keys_index: xxh3-64 of the images column's `KeyIndex`, as hex; None where there is none.
        file_bytes: Size of the file that it was read from, with that of the index; 0 if it was made of
            receipts.
    """

    shards: np.ndarray
    samples: np.ndarray
    tar_bytes: np.ndarray
    xxh3: np.ndarray
    keys_digest: np.ndarray
    totals: Totals
    keys_index: str | None = None
    file_bytes: int = 0

    def to_parquet(self, column: str) -> bytes:
        """The file. The same receipts, and the same release of pyarrow, give the same bytes.

        Args:
            column: Full key of the column.
        """
        # Imported here, as below: it takes more memory than a process needs for the arrays.
        import pyarrow as pa
        from pyarrow import parquet

        document = {"version": _VERSION, "column": column, "totals": self.totals}
        if self.keys_index is not None:
            document["keys_index"] = self.keys_index
        document["digest"] = self._digest(document)
        digests = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), len(self.shards), [None, pa.py_buffer(self.keys_digest.tobytes())]
        )
        table = pa.table(
            [pa.array(self.samples), pa.array(self.tar_bytes), pa.array(self.xxh3), digests], schema=_schema()
        )
        sink = pa.BufferOutputStream()
        # Digests cannot be compressed, and what is not compressed cannot grow when it is read.
        with parquet.ParquetWriter(
            sink,
            table.schema,
            compression="none",
            use_dictionary=["samples"],
            column_encoding={"bytes": "DELTA_BINARY_PACKED", "xxh3": "PLAIN", "keys_digest": "PLAIN"},
            write_statistics=False,
            store_schema=False,
        ) as writer:
            writer.write_table(table, row_group_size=max(1, len(table)))
            writer.add_key_value_metadata({_METADATA: canonical_json(document)})
        data: bytes = sink.getvalue().to_pybytes()
        return data

    @classmethod
    def from_parquet(cls, data: bytes, column: str, shards: int) -> "Manifest":
        """The manifest in a file.

        Args:
            data: The file.
            column: Full key of the column.
            shards: Number of shards of the store.

        Raises:
            ValueError: It is damaged, no manifest, or that of another column.
        """
        import pyarrow as pa
        from pyarrow import parquet

        if len(data) > most_bytes(shards):
            raise ValueError("it is larger than any manifest of so many shards")
        if any(codec != 0 for codec in codecs_of(data)):
            raise ValueError("it is compressed")
        try:
            file = parquet.ParquetFile(
                pa.BufferReader(data), thrift_string_size_limit=len(data), thrift_container_size_limit=1 << 16
            )
            document = parse((file.metadata.metadata or {}).get(_METADATA, b""))
            check(document, _Document)
            if not file.schema_arrow.equals(_schema()):
                raise ValueError("it has other columns than a manifest")
            if document["column"] != column:
                raise ValueError("it belongs to another column")
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            if file.metadata.num_rows != shards or sum(group.num_rows for group in groups) != shards:
                raise ValueError(f"it has {file.metadata.num_rows} shards, and the store {shards}")
            table = file.read().combine_chunks()
            digests = b"".join(table["keys_digest"].to_pylist())
        except (pa.ArrowException, OSError, MemoryError, OverflowError) as error:
            raise ValueError("it is no parquet file, or damaged") from error
        if table.num_rows != shards:
            raise ValueError(f"it has {table.num_rows} shards, and the store {shards}")
        samples = table["samples"].to_numpy()
        found = cls(
            shards=np.arange(shards),
            samples=samples,
            tar_bytes=table["bytes"].to_numpy(),
            xxh3=table["xxh3"].to_numpy(),
            keys_digest=np.frombuffer(digests, np.uint8).reshape(-1, 32),
            totals=document["totals"],
            keys_index=document.get("keys_index"),
            file_bytes=len(data) + (index_bytes(int(samples.sum())) if "keys_index" in document else 0),
        )
        if (
            found._digest({name: each for name, each in document.items() if name != "digest"})
            != (document["digest"])
        ):
            raise ValueError("its own checksum is another")
        if shards and (found.samples.min() < 0 or found.tar_bytes.min() < 0):
            raise ValueError("it counts less than nothing")
        return found

    def _digest(self, document: dict[str, object]) -> str:
        digest = xxhash.xxh3_64(canonical_json(document))
        for array in (self.samples, self.tar_bytes, self.xxh3, self.keys_digest):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def row_of(self, receipt: Receipt) -> tuple[int, int, int, bytes]:
        """What the manifest of a finished column says of a receipt's shard, as `row` has it."""
        i = int(receipt.shard)
        return (
            int(self.samples[i]),
            int(self.tar_bytes[i]),
            int(self.xxh3[i]),
            self.keys_digest[i].tobytes(),
        )


def _schema() -> Any:
    import pyarrow as pa

    columns = {"samples": pa.int32(), "bytes": pa.int64(), "xxh3": pa.uint64(), "keys_digest": pa.binary(32)}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def row(receipt: Receipt) -> tuple[int, int, int, bytes]:
    """A receipt's samples, bytes, xxh3 and keys digest."""
    return receipt.samples, receipt.bytes, int(receipt.xxh3, 16), bytes.fromhex(receipt.keys_digest)


def most_bytes(shards: int) -> int:
    """Size of the largest manifest of so many shards that is read."""
    return _MOST + _MOST_A_SHARD * shards


def manifest_url(column: Column) -> str:
    """Address of a column's manifest."""
    return fs.join(column.url, FILE)


def read_manifest(column: Column) -> Manifest | None:
    """The manifest of a column, in one request; None if there is none, or if a part of the column has none.

    Raises:
        DenseCLIError: It is damaged, or that of another column.
    """
    if isinstance(column, PartedColumn):
        found = prefetch(read_manifest, column.parts, threads=_THREADS, window=_WINDOW)
        return _together(list(found), [len(part.shard_names) for part in column.parts])
    url, shards = manifest_url(column), len(column.shard_names)
    try:
        return Manifest.from_parquet(fs.read_range(url, 0, most_bytes(shards) + 1), column.key, shards)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DenseCLIError(
            f"The manifest {url} is damaged: {error}.",
            hint="Delete it and run the build of its column again, which writes it anew from the receipts.",
        ) from error


def _together(manifests: Sequence[Manifest | None], counts: Sequence[int]) -> Manifest | None:
    """The manifests of the parts of a column as one, without an index of keys; None if one lacks."""
    found = [manifest for manifest in manifests if manifest is not None]
    if len(found) < len(manifests):
        return None
    offsets = np.cumsum([0, *counts[:-1]])
    skipped, seconds, errors = Counter[str](), Counter[str](), ErrorTotals()
    for manifest in found:
        skipped.update(manifest.totals["skipped"])
        seconds.update(manifest.totals["run"]["seconds"])
        errors.add(manifest.totals["error"], int(manifest.samples.sum()))
    runs = [manifest.totals["run"] for manifest in found]
    return Manifest(
        shards=np.concatenate([m.shards + offset for m, offset in zip(found, offsets, strict=True)]),
        samples=np.concatenate([manifest.samples for manifest in found]),
        tar_bytes=np.concatenate([manifest.tar_bytes for manifest in found]),
        xxh3=np.concatenate([manifest.xxh3 for manifest in found]),
        keys_digest=np.concatenate([manifest.keys_digest for manifest in found]),
        totals={
            "skipped": dict(skipped),
            "error": errors.totals(),
            "run": {
                "seconds": dict(seconds),
                "gpu_seconds": sum(run["gpu_seconds"] for run in runs),
                "receipt_bytes": sum(run["receipt_bytes"] for run in runs),
            },
        },
        file_bytes=sum(manifest.file_bytes for manifest in found),
    )


def withdraw(column: Column) -> None:
    """Removes the manifest of a column, before something changes there."""
    with suppress(FileNotFoundError):
        fs.remove(manifest_url(column))


def lacks_manifest(column: Column) -> bool:
    """Whether a column has no manifest that can be read. A computed one needs none."""
    if column.computed:
        return False
    try:
        return read_manifest(column) is None
    except DenseCLIError:
        return True
