"""The reader: whole shards checked against receipts, columns joined by key, in a reproducible order."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from PIL import Image

from shards import fs
from shards.errors import DenseCLIError
from shards.keys import keys_digest
from shards.receipts import Receipt
from shards.store import Column

Sample = tuple[str, dict[str, bytes]]

_REBUILD = "Delete the receipt {receipt} and run the build again: it redoes this shard only."


@dataclass(frozen=True)
class Record:
    """One sample of the joined columns: parts["images"], parts["regions"], parts[teacher] by extension."""

    key: str
    parts: dict[str, dict[str, bytes]]


def read_shard(column: Column, shard: str) -> list[Sample]:
    """The samples of one shard in order, as (key, bytes by extension).

    Raises DenseCLIError as `read_tar` and `samples_of`.
    """
    return samples_of(column, shard, *read_tar(column, shard))


def samples_of(column: Column, shard: str, data: bytes, receipt: Receipt) -> list[Sample]:
    """The samples of a shard out of what `read_tar` gave.

    Raises DenseCLIError where the receipt contradicts itself.
    """
    samples: dict[str, dict[str, bytes]] = {}
    for name, (offset, size) in sorted(receipt.members.items(), key=lambda item: item[1]):
        key, extension = name.split(".", 1)
        samples.setdefault(key, {})[extension] = data[offset : offset + size]
    if len(samples) != receipt.samples or keys_digest(list(samples)) != receipt.keys_digest:
        url = column.receipt_url(shard)
        raise DenseCLIError(
            f"The receipt {url} lists other samples than it counts.", hint=_REBUILD.format(receipt=url)
        )
    return list(samples.items())


def read_tar(column: Column, shard: str) -> tuple[bytes, Receipt]:
    """A shard's tar, whole, and its receipt.

    Raises DenseCLIError when it is not the tar that its receipt describes: absent, unfinished, changed.
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
        data = fs.read_bytes(tar)
    except FileNotFoundError as error:
        raise DenseCLIError(f"The shard {tar} is gone, but its receipt is there.", hint=rebuild) from error
    if trouble := _difference(data, receipt):
        raise DenseCLIError(f"The shard {tar} {trouble}.", hint=rebuild)
    return data, receipt


def _difference(data: bytes, receipt: Receipt) -> str:
    """What is wrong with the tar, as the end of a sentence; empty when it is the receipt's."""
    # Tar members start on blocks of 512 bytes.
    ends = [-(-(offset + size) // 512) * 512 for offset, size in receipt.members.values()]
    if not data:
        return f"is empty, not {receipt.bytes} bytes"
    if len(data) < receipt.bytes and len(data) in ends:
        whole = sum(end <= len(data) for end in ends)
        return f"was cut between two members: {whole} of {len(ends)} are there"
    if len(data) < receipt.bytes:
        return f"was cut: {len(data)} of {receipt.bytes} bytes are there"
    if len(data) > receipt.bytes:
        return f"is longer than its receipt says: {len(data)}, not {receipt.bytes} bytes"
    if xxhash.xxh3_64_hexdigest(data) != receipt.xxh3:
        return "has changed since it was written: its checksum is another"
    return ""


def read_joined(columns: Sequence[Column], shard: str) -> list[Record]:
    """The shard's samples with every column's members side by side.

    Raises DenseCLIError as `read_shard` does, and when the columns differ in their keys or the order of them.
    """
    shards = [read_shard(column, shard) for column in columns]
    keys = [key for key, _ in shards[0]]
    for column, samples in zip(columns, shards, strict=True):
        if [key for key, _ in samples] != keys:
            raise DenseCLIError(
                f"Shard {shard} of {column.url} holds other samples than shard {shard} of {columns[0].url}.",
                hint="Delete the receipts of both and build them again, from the same data.",
            )
    rows = zip(*shards, strict=True)
    return [
        Record(row[0][0], {column.part: parts for column, (_, parts) in zip(columns, row, strict=True)})
        for row in rows
    ]


def order(n_per_shard: Sequence[int], seed: int, epoch: int, window: int = 4) -> Iterator[np.ndarray]:
    """An epoch as (n, 2) int blocks of (shard, row): every sample once, a pure function of the arguments.

    The shards are shuffled and taken `window` at a time; a block is the shuffled samples of one window.
    """
    shuffled = _permutation(len(n_per_shard), seed, epoch, "shards")
    for first in range(0, len(shuffled), window):
        shards = shuffled[first : first + window]
        block = np.concatenate(
            [np.stack(np.broadcast_arrays(s, np.arange(n_per_shard[s])), axis=1) for s in shards]
        )
        yield block[_permutation(len(block), seed, epoch, f"window {first}")]


def _permutation(n: int, seed: int, epoch: int, what: str) -> np.ndarray:
    # Raw Philox words: numpy promises its bit streams for ever, its shuffles only until the next release.
    key = xxhash.xxh3_128_intdigest(f"{seed}/{epoch}/{what}".encode())
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")


class StoreReader:
    """Joined samples of some columns of one store, shuffled by (seed, epoch)."""

    def __init__(
        self, columns: Sequence[Column], *, seed: int = 0, shuffle: bool = True, window: int = 4
    ) -> None:
        """Raises DenseCLIError when the columns cannot be joined or one of them is not finished."""
        self.columns = _joinable(columns)
        self.seed = seed
        self.shuffle = shuffle
        self.window = window
        receipts = [columns[0].receipt(shard) for shard in columns[0].shard_names]
        self.samples_per_shard = [receipt.samples for receipt in receipts if receipt is not None]

    def __len__(self) -> int:
        return sum(self.samples_per_shard)

    def iter(self, epoch: int, start: int = 0) -> Iterator[Record]:
        """The epoch's records from position `start` on. Shards that lie before it are not read.

        The position is global: the number of samples of the epoch, over all processes, that come before.
        """
        names = self.columns[0].shard_names
        for block in self._blocks(epoch):
            rows, start = block[start:], max(0, start - len(block))
            records = {s: read_joined(self.columns, names[s]) for s in dict.fromkeys(rows[:, 0].tolist())}
            for shard, row in rows.tolist():
                yield records[shard][row]

    def _blocks(self, epoch: int) -> Iterator[np.ndarray]:
        if self.shuffle:
            return order(self.samples_per_shard, self.seed, epoch, self.window)
        return (np.stack([np.full(n, s), np.arange(n)], axis=1) for s, n in enumerate(self.samples_per_shard))


def _joinable(columns: Sequence[Column]) -> list[Column]:
    first = columns[0]
    for i, column in enumerate(columns):
        canvases = [c.spec["data"]["canvas"] for c in (first, column)]
        if canvases[0] != canvases[1]:
            raise DenseCLIError(
                f"{first.url} was made for canvas {canvases[0]}, but {column.url} for canvas {canvases[1]}.",
                hint="Take columns of one store: cached maps cannot be resized.",
            )
        if column.spec["data"] != first.spec["data"]:
            raise DenseCLIError(
                f"{first.url} and {column.url} belong to different stores.",
                hint="Take columns of one store: only those hold the same samples.",
            )
        if column.part in [c.part for c in columns[:i]]:
            raise DenseCLIError(
                f"Two of the columns to read are called {column.part}.", hint="Choose one of them by its id."
            )
        if missing := column.missing():
            raise DenseCLIError(
                f"The column {column.url} is not finished: {len(missing)} of {len(column.shard_names)} "
                f"shards are missing, the first is {missing[0]}.",
                hint="Run its build again: it continues where it stopped.",
            )
    return list(columns)


def decode_npz(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` member by name. Never unpickles: object arrays raise ValueError."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive)


def decode_image(data: bytes) -> np.ndarray:
    """(h, w, 3) uint8 RGB of a `.jpg` member."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
