"""Reads a store: whole shards checked against their receipts, columns joined by key, in a fixed order."""

import io
import mmap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import tee
from operator import itemgetter

import numpy as np
import xxhash
from PIL import Image

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.keys import keys_digest
from densecli.shards.npz import decode_npz as decode_npz
from densecli.shards.receipts import BLOCK, Receipt
from densecli.shards.shuffle import shuffled_blocks

Sample = tuple[str, dict[str, bytes]]
Buffer = bytes | mmap.mmap
Places = dict[str, dict[str, tuple[int, int]]]
"""Where a tar has the members of each sample: {key: {extension: (first byte, size)}}."""

# Where the header of a tar's member has the name and, in octal digits, the size.
_NAME, _SIZE = 100, slice(124, 135)

# Files fetched at the same time: object stores are slow to answer, not to send.
_FETCHES = 8

_REBUILD = "Delete the receipt {receipt} and run the build again: it redoes this shard only."


@dataclass(frozen=True)
class Record:
    """One sample of joined columns.

    Attributes:
        key: Key of the sample.
        parts: Its members by extension, under "images", "regions" and the teachers' names.
    """

    key: str
    parts: dict[str, "Members"]

    def image(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB: the photo, not padded. Raises DenseCLIError for one that is damaged."""
        with self._reading("images"):
            return decode_image(self.parts["images"]["jpg"])

    def arrays(self, part: str) -> dict[str, np.ndarray]:
        """The stored arrays of a part by name; of "regions" its `boxes` and `offsets`, see `Regions`.

        Raises:
            DenseCLIError: They are damaged.
        """
        with self._reading(part):
            return decode_npz(self.parts[part]["npz"])

    @contextmanager
    def _reading(self, part: str) -> Iterator[None]:
        try:
            yield
        # Pillow raises anything for a damaged photo.
        except Exception as error:
            cause = (
                f"it has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
            )
            raise DenseCLIError(
                f"The sample {self.key} in {self.parts[part].url} is damaged: {cause}.",
                hint="Its checksum is right, so it was written like this: build the shard again.",
            ) from error


class Members(Mapping[str, memoryview]):
    """The members of a sample by extension, as views of the tar that copy nothing."""

    __slots__ = ("_places", "_tar", "url")

    def __init__(self, tar: memoryview, places: dict[str, tuple[int, int]], url: str) -> None:
        self._tar, self._places, self.url = tar, places, url

    def __getitem__(self, extension: str) -> memoryview:
        first, size = self._places[extension]
        return self._tar[first : first + size]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True)
class JoinedShard:
    """One shard of several columns: its records, made when asked for."""

    keys: list[str]
    columns: list[tuple[str, memoryview, list[dict[str, tuple[int, int]]], str]]
    """(part, tar, where the members of each sample are, address of the tar)."""

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: int) -> Record:
        return Record(
            self.keys[row],
            {part: Members(tar, samples[row], url) for part, tar, samples, url in self.columns},
        )


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
    return block[:_NAME] == name.ljust(_NAME, b"\0") and block[_SIZE] == b"%011o" % size


def _fetch(tar: str, receipt: Receipt, cache: Cache | None) -> Buffer:
    if cache is None or fs.is_local(tar):
        return fs.map_bytes(tar)
    # Named by its content: a shard that was built again is another file.
    name = f"{receipt.column[:12]}-{receipt.shard}-{receipt.xxh3}.tar"
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
    # Tar members start at multiples of 512 bytes.
    ends = [-(-(offset + size) // 512) * 512 for offset, size in receipt.members.values()]
    if len(data) in ends:
        whole = sum(end <= len(data) for end in ends)
        return f"was cut between two members: {whole} of {len(ends)} are there"
    return f"was cut: {len(data)} of {receipt.bytes} bytes are there"


def read_joined(columns: Sequence[Column], shard: str) -> list[Record]:
    """The samples of one shard with the members of all columns. Raises the errors of `open_joined`."""
    joined = open_joined(columns, shard)
    return [joined[row] for row in range(len(joined))]


def open_joined(columns: Sequence[Column], shard: str, cache: Cache | None = None) -> JoinedShard:
    """One shard of all columns.

    Raises:
        DenseCLIError: See `read_shard`; or the columns have other keys, or the same in another order.
    """
    joined: list[tuple[str, memoryview, list[dict[str, tuple[int, int]]], str]] = []
    keys: list[str] | None = None
    for column in columns:
        data, receipt = read_tar(column, shard, cache)
        places = places_of(column, shard, receipt)
        keys = list(places) if keys is None else keys
        if list(places) != keys:
            raise DenseCLIError(
                f"Shard {shard} of {column.url} holds other samples than shard {shard} of {columns[0].url}.",
                hint="Delete the receipts of both and build them again, from the same data.",
            )
        url = column.tar_url(shard)
        joined.append((column.part, memoryview(data), list(places.values()), url))
    return JoinedShard(keys or [], joined)


class StoreReader:
    """Joined samples of some columns of one store, shuffled by seed and epoch."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        seed: int = 0,
        shuffle: bool = True,
        window: int = 4,
        cache: Cache | None = None,
    ) -> None:
        """A reader of finished columns.

        Args:
            columns: Of one store.
            seed: Seed of the shuffle.
            shuffle: Whether to shuffle; otherwise samples come in the order of the shards.
            window: Number of shards that are shuffled together. As many again are fetched ahead.
            cache: Keeps the tars of a remote store.

        Raises:
            DenseCLIError: The columns cannot be joined, or one is not finished.
        """
        self.columns = _joinable(columns)
        self.seed = seed
        self.shuffle = shuffle
        self.window = window
        self.cache = cache
        with ThreadPoolExecutor(_FETCHES) as pool:
            receipts = list(pool.map(columns[0].receipt, columns[0].shard_names))
        self.samples_per_shard = [receipt.samples for receipt in receipts if receipt is not None]

    def __len__(self) -> int:
        return sum(self.samples_per_shard)

    def iter(
        self, epoch: int, start: int = 0, *, chunk: int = 1, rank: int = 0, world_size: int = 1
    ) -> Iterator[Record]:
        """The records of one process in an epoch. Reads only the shards that it needs.

        Args:
            epoch: Counted from 0.
            start: Position in the epoch to begin at: the number of samples before it, over all processes.
            chunk: Number of successive records that go to the same process.
            rank: Of every `world_size` chunks, this process gets the one of its rank.
            world_size: Number of processes.
        """
        names = self.columns[0].shard_names

        def fetch(shard: int) -> JoinedShard:
            return open_joined(self.columns, names[shard], self.cache)

        windows, later = tee(self._windows(epoch, start, chunk, rank, world_size))
        wanted = (shard for rows in later for shard in _shards_of(rows))
        # Beside the shards of one window, as many again.
        ahead = (self.window if self.shuffle else 1) + 1
        with closing(prefetch(fetch, wanted, threads=_FETCHES, window=ahead)) as fetched:
            for rows in windows:
                shards = {shard: next(fetched) for shard in _shards_of(rows)}
                for shard, row in rows.tolist():
                    yield shards[shard][row]

    def _windows(
        self, epoch: int, start: int, chunk: int, rank: int, world_size: int
    ) -> Iterator[np.ndarray]:
        """The (shard, row) pairs that `iter` takes from each block of the epoch, without empty ones."""
        first = 0
        for block in self._blocks(epoch):
            after = np.arange(first, first + len(block)) - start
            first += len(block)
            taken = block[(after >= 0) & (after // chunk % world_size == rank)]
            if len(taken):
                yield taken

    def _blocks(self, epoch: int) -> Iterator[np.ndarray]:
        if self.shuffle:
            return shuffled_blocks(self.samples_per_shard, self.seed, epoch, self.window)
        return (np.stack([np.full(n, s), np.arange(n)], axis=1) for s, n in enumerate(self.samples_per_shard))


def _shards_of(rows: np.ndarray) -> list[int]:
    """The shards of some (shard, row) pairs, each once, in order."""
    return list(dict.fromkeys(rows[:, 0].tolist()))


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


def decode_image(data: bytes | memoryview) -> np.ndarray:
    """The image (h, w, 3) uint8 RGB in a `.jpg` member."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    # Converting copies even an RGB image.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
