"""Reads a store: whole shards checked against their receipts, columns joined by key, in a fixed order."""

import io
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import tee
from operator import itemgetter
from typing import Generic, TypeVar

import numpy as np
import xxhash
from PIL import Image

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.keys import keys_digest
from densecli.shards.lanes import Lanes, Share
from densecli.shards.npz import decode_npz as decode_npz
from densecli.shards.receipts import BLOCK, Receipt

Sample = tuple[str, dict[str, bytes]]
Buffer = bytes | mmap.mmap
Places = dict[str, dict[str, tuple[int, int]]]
"""Where a tar has the members of each sample: {key: {extension: (first byte, size)}}."""
OpenTar = tuple[memoryview, Places]
T = TypeVar("T")

# Where the header of a tar's member has the name and, in octal digits, the size.
_NAME, _SIZE = 100, slice(124, 135)

# Files fetched at the same time: object stores are slow to answer, not to send.
_FETCHES = 8

_REBUILD = "Delete the receipt {receipt} and run the build again: it redoes this shard only."


@dataclass(frozen=True)
class Record:
    """One sample of joined columns.

    Attributes:
        key: Of the sample.
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
        column: Of the shard.
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
        DenseCLIError: See `read_shard` and `join_tars`.
    """
    return join_tars(columns, shard, [open_tar(column, shard, cache) for column in columns])


def open_tar(column: Column, shard: str, cache: Cache | None = None) -> OpenTar:
    """A shard's tar and where it has its samples. Raises the errors of `read_shard`."""
    data, receipt = read_tar(column, shard, cache)
    return memoryview(data), places_of(column, shard, receipt)


def join_tars(columns: Sequence[Column], shard: str, tars: Sequence[OpenTar]) -> JoinedShard:
    """One shard of all columns from their tars.

    Raises:
        DenseCLIError: The columns have other keys, or the same in another order.
    """
    keys = list(tars[0][1])
    joined = []
    for column, (tar, places) in zip(columns, tars, strict=True):
        if list(places) != keys:
            raise DenseCLIError(
                f"Shard {shard} of {column.url} holds other samples than shard {shard} of {columns[0].url}.",
                hint="Delete the receipts of both and build them again, from the same data.",
            )
        joined.append((column.part, tar, list(places.values()), column.tar_url(shard)))
    return JoinedShard(keys, joined)


class StoreReader:
    """Joined samples of some columns of one store, shuffled by seed and epoch."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        seed: int = 0,
        shuffle: bool = True,
        lanes: int = 1,
        window: int = 4,
        prefetch_bytes: float = 1e9,
        cache: Cache | None = None,
    ) -> None:
        """A reader of finished columns.

        Args:
            columns: Of one store.
            seed: Of the shuffle.
            shuffle: Whether to shuffle; otherwise samples come in the order of the shards.
            lanes: Number of lanes that the samples are dealt to, see `Lanes`.
            window: Number of shards of a lane that are shuffled together.
            prefetch_bytes: About so much of the first column is fetched ahead of its use, one shard at least.
            cache: Keeps the tars of a remote store.

        Raises:
            DenseCLIError: The columns cannot be joined, or one is not finished.
        """
        self.columns = _joinable(columns)
        self.cache = cache
        with ThreadPoolExecutor(_FETCHES) as pool:
            found = list(pool.map(columns[0].receipt, columns[0].shard_names))
        receipts = [receipt for receipt in found if receipt is not None]
        sizes = [receipt.samples for receipt in receipts]
        self.lanes = Lanes(sizes, lanes, seed=seed, window=window, shuffle=shuffle)
        mean = sum(receipt.bytes for receipt in receipts) / max(1, len(receipts))
        self._shards_ahead = max(1, int(prefetch_bytes / max(1.0, mean)))

    def __len__(self) -> int:
        return self.lanes.samples

    def iter(
        self, epoch: int, start: int = 0, *, batch: int = 1, rank: int = 0, world_size: int = 1
    ) -> Iterator[Record]:
        """The records of one process in an epoch. Reads only the shards that it needs.

        Args:
            epoch: Counted from 0.
            start: Position in the epoch to begin at: the number of samples before it, over all processes.
            batch: Samples of a batch of all processes together, of which this one gets its `piece`.
            rank: Number of this process.
            world_size: Number of processes.
        """
        names = self.columns[0].shard_names

        def fetch(tar: tuple[Column, int]) -> OpenTar:
            column, shard = tar
            return open_tar(column, names[shard], self.cache)

        now, later = tee(self.lanes.shares(epoch, start, batch=batch, rank=rank, world_size=world_size))
        wanted = ((column, shard) for shard in _first_uses(later) for column in self.columns)
        window = 1 + self._shards_ahead * len(self.columns)
        blocks: OpenBlocks[JoinedShard] = OpenBlocks()
        with closing(prefetch(fetch, wanted, threads=_FETCHES, window=window)) as fetched:
            for lane, block, shard, row in _places(now):
                held = blocks.at(lane, block)
                if shard not in held:
                    tars = [next(fetched) for _ in self.columns]
                    held[shard] = join_tars(self.columns, names[shard], tars)
                yield held[shard][row]


class OpenBlocks(Generic[T]):
    """What is held for each shard of the block that each lane has reached."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, dict[int, T]]] = {}

    def at(self, lane: int, block: int) -> dict[int, T]:
        """What is held for a block, by shard. What was held for the lane's former block is dropped."""
        reached, held = self._held.get(lane, (-1, {}))
        if reached != block:
            held = {}
            self._held[lane] = block, held
        return held


def _places(shares: Iterable[Share]) -> Iterator[tuple[int, int, int, int]]:
    """(lane, block, shard, row) of each sample."""
    for share in shares:
        yield from zip(*(part.tolist() for part in share), strict=True)


def _first_uses(shares: Iterable[Share]) -> Iterator[int]:
    """The shards in the order in which their lane's block comes to need them."""
    blocks: OpenBlocks[None] = OpenBlocks()
    for lane, block, shard, _ in _places(shares):
        held = blocks.at(lane, block)
        if shard not in held:
            held[shard] = None
            yield shard


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
