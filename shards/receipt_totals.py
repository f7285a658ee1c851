"""What the receipts of a column say together, counted shard by shard."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.shards.column import Column
from densecli.shards.key_index import KeyIndex, key_hashes
from densecli.shards.manifest import ErrorTotals, Manifest, Totals, manifest_url, read_manifest, row
from densecli.shards.receipts import Receipt
from densecli.shards.tars import index_of

# Receipts read at the same time, and how many may wait to be counted.
_THREADS, _WINDOW = 16, 64


class ReceiptTotals:
    """Adds up the receipts of some shards of a column, in order."""

    def __init__(self, column: Column, shards: Sequence[int], *, with_keys: bool = False) -> None:
        """Of nothing yet.

        Args:
            column: The column.
            shards: Numbers of the shards whose receipts will be added.
            with_keys: Whether to make the index of the keys too, if it is the column of photos.
        """
        n = len(shards)
        self._column, self._shards, self._added = column, np.array(shards, dtype=np.int64), 0
        self._samples, self._bytes = np.zeros(n, np.int32), np.zeros(n, np.int64)
        self._xxh3, self._digests = np.zeros(n, np.uint64), np.zeros((n, 32), np.uint8)
        self._hashes: list[np.ndarray] | None = [] if with_keys and column.kind == "images" else None
        self._receipt_bytes, self._gpu_seconds = 0, 0.0
        self._skipped, self._seconds = Counter[str](), Counter[str]()
        self._errors = ErrorTotals()

    def add(self, receipt: Receipt, size: int) -> None:
        """Adds the next shard's receipt and its size. Raises DenseCLIError if it contradicts itself."""
        i = self._added
        samples, self._bytes[i], self._xxh3[i], digest = row(receipt)
        self._samples[i], self._digests[i] = samples, np.frombuffer(digest, np.uint8)
        self._receipt_bytes += size
        self._gpu_seconds += receipt.gpu_seconds
        self._skipped.update(receipt.skipped)
        self._seconds.update(receipt.seconds)
        self._errors.add(receipt.error, samples)
        if self._hashes is not None:
            keys = index_of(self._column, receipt.shard, receipt).samples
            self._hashes.append(key_hashes(keys, int(self._shards[i])))
        self._added += 1

    def manifest(self) -> tuple[Manifest, KeyIndex | None]:
        """What all of them say, and the index of the keys if one was asked for."""
        index = None if self._hashes is None else KeyIndex.of(self._hashes)
        totals: Totals = {
            "skipped": dict(self._skipped),
            "error": self._errors.totals(),
            "run": {
                "seconds": {stage: float(seconds) for stage, seconds in self._seconds.items()},
                "gpu_seconds": float(self._gpu_seconds),
                "receipt_bytes": self._receipt_bytes,
            },
        }
        manifest = Manifest(
            shards=self._shards,
            samples=self._samples,
            tar_bytes=self._bytes,
            xxh3=self._xxh3,
            keys_digest=self._digests,
            totals=totals,
            keys_index=None if index is None else index.digest,
        )
        return manifest, index


def _count(
    column: Column, shards: Sequence[int], advance: Callable[[int], None], *, with_keys: bool = False
) -> ReceiptTotals:
    """Adds up the receipts of these shards."""
    totals = ReceiptTotals(column, shards, with_keys=with_keys)
    places = ((column, column.shard_names[i]) for i in shards)
    with closing(prefetch(_read, places, threads=_THREADS, window=_WINDOW)) as receipts:
        for receipt, size in receipts:
            totals.add(receipt, size)
            advance(1)
    return totals


def _read(place: tuple[Column, str]) -> tuple[Receipt, int]:
    column, shard = place
    try:
        data = fs.read_bytes(column.receipt_url(shard))
    except FileNotFoundError as error:
        raise DenseCLIError(
            f"The receipt {column.receipt_url(shard)} was removed a moment ago.",
            hint="Run the command again once nothing writes to the store.",
        ) from error
    return column.parsed_receipt(shard, data), len(data)


def describe_shards(column: Column, advance: Callable[[int], None] = lambda shards: None) -> Manifest:
    """What the receipts of a column's built shards say: from its manifest, or else from the receipts.

    Args:
        column: The column, finished or not.
        advance: Called with the number of shards that were just counted.

    Raises:
        DenseCLIError: The manifest or a receipt is damaged.
    """
    found = read_manifest(column)
    # A listing of a local folder is one look, and tells whether somebody deleted a shard. Elsewhere it takes
    # a request for each 500 shards.
    missing = column.missing() if found is None or fs.is_local(column.url) else []
    if found is not None and not missing:
        advance(len(column.shard_names))
        return found
    return count_receipts(column, missing, advance)


def count_receipts(
    column: Column, missing: Sequence[str] = (), advance: Callable[[int], None] = lambda shards: None
) -> Manifest:
    """What the receipts of a column say, but for the shards that are missing."""
    if missing:
        advance(len(missing))
    gone = set(missing)
    there = [i for i, shard in enumerate(column.shard_names) if shard not in gone]
    return _count(column, there, advance).manifest()[0]


def publish(column: Column, advance: Callable[[int], None] = lambda shards: None) -> None:
    """Writes the manifest of a column from its receipts, if the column is finished.

    Args:
        column: The column.
        advance: Called with the number of shards that were just counted.

    Raises:
        DenseCLIError: A receipt is damaged, or the store cannot be written.
    """
    if column.missing():
        return
    shards = range(len(column.shard_names))
    manifest, index = _count(column, shards, advance, with_keys=True).manifest()
    if index is not None:
        index.write(column.url)
    fs.write_atomic(manifest_url(column), manifest.to_parquet(column.key))
