"""Joins one shard of several columns by key, into records."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import Unreadable, open_picture, to_rgb
from densecli.shards.column import Column, check_photos
from densecli.shards.npz import decode_npz, npz_bytes
from densecli.shards.regions import Regions
from densecli.shards.tars import OpenTar, open_tar


class Record:
    """One sample of joined columns."""

    __slots__ = ("_row", "_shard")

    def __init__(self, shard: "JoinedShard", row: int) -> None:
        self._shard, self._row = shard, row

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (self.key, self.parts) == (other.key, other.parts)

    __hash__ = None  # type: ignore[assignment]

    @property
    def key(self) -> str:
        """Key of the sample."""
        return self._shard.keys[self._row]

    @property
    def parts(self) -> "dict[str, Members | ComputedMembers]":
        """Members by extension, under "images", "regions" and the names of teachers."""
        row = self._row
        return {part: source.members(row) for part, source in self._shard.parts.items()}

    def image(self) -> np.ndarray:
        """Decodes the photo.

        Returns:
            (h, w, 3) uint8 RGB, not padded.

        Raises:
            DenseCLIError: The photo is damaged.
        """
        with self.reading("images"):
            return _decode(self.parts["images"]["jpg"])

    def regions(self) -> Regions:
        """The regions, stored or computed. Raises DenseCLIError for damaged ones."""
        with self.reading("regions"):
            return self._shard.parts["regions"].regions(self._row)

    def arrays(self, part: str) -> dict[str, np.ndarray]:
        """Reads the stored arrays of a part.

        Args:
            part: "regions" or the name of a teacher.

        Returns:
            Arrays by name. "regions" has `boxes` and `offsets`; see `densecli.shards.regions.Regions`.

        Raises:
            DenseCLIError: The arrays are damaged.
        """
        with self.reading(part):
            return self._shard.parts[part].arrays(self._row)

    @contextmanager
    def reading(self, part: str) -> Iterator[None]:
        """Whatever the block raises is told as a damage of this part, by DenseCLIError."""
        try:
            yield
        except DenseCLIError:
            raise
        # Decoders raise errors of any kind for damaged photos and arrays.
        except Exception as error:
            cause = (str(error).splitlines() or [""])[0][:200].rstrip(".") or type(error).__name__
            cause = f"it has no {cause}" if isinstance(error, KeyError) else cause
            cause = f"its photo {error.sentence}" if isinstance(error, Unreadable) else cause
            raise DenseCLIError(
                f"The sample {self.key} in {self.parts[part].url} is damaged: {cause}.",
                hint="Its checksum is right, so it was written like this: build the shard again.",
            ) from error


class Members(Mapping[str, memoryview]):
    """The members of a sample by extension, as views of the tar that copy nothing."""

    __slots__ = ("_row", "_tar")

    def __init__(self, tar: "JoinedTar", row: int) -> None:
        self._tar, self._row = tar, row

    @property
    def url(self) -> str:
        """Address of the tar."""
        return self._tar.url

    def __getitem__(self, extension: str) -> memoryview:
        firsts, ends = self._tar.places[extension]
        first = firsts[self._row]
        if first < 0:
            raise KeyError(extension)
        return self._tar.data[first : ends[self._row]]

    def __contains__(self, extension: object) -> bool:
        places = self._tar.places.get(extension)  # type: ignore[call-overload]
        return places is not None and places[0][self._row] >= 0

    def __iter__(self) -> Iterator[str]:
        return (extension for extension in self._tar.places if extension in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class JoinedTar:
    """One shard of one column.

    Attributes:
        data: The tar.
        places: For each extension the first bytes of the samples' members and the first behind them; negative
            where a sample has none.
        url: Address of the tar.
        index: See `OpenTar`.
    """

    __slots__ = ("data", "index", "places", "url")

    def __init__(self, tar: OpenTar, url: str) -> None:
        self.data, self.url, self.index = tar.data, url, tar.index
        # Lists: single numbers of an array take longer.
        self.places: dict[str, list[list[int]]] = {
            extension: np.cumsum(places, axis=1).T.tolist() for extension, places in tar.index.places.items()
        }

    def members(self, row: int) -> Members:
        """The members of a sample."""
        return Members(self, row)

    def arrays(self, row: int) -> dict[str, np.ndarray]:
        """The arrays of a sample. Raises KeyError or ValueError for damaged ones."""
        return decode_npz(Members(self, row)["npz"])

    def regions(self, row: int) -> Regions:
        """The regions of a sample. Raises KeyError or ValueError for damaged ones."""
        return Regions.of(self.arrays(row))


class ComputedMembers(Mapping[str, memoryview]):
    """The member of a sample as a writer would have stored it, made when asked for."""

    __slots__ = ("_boxes", "_row")

    def __init__(self, boxes: "ComputedBoxes", row: int) -> None:
        self._boxes, self._row = boxes, row

    @property
    def url(self) -> str:
        """Address of the tar with the photo that it follows from."""
        return self._boxes.photos.url

    def __getitem__(self, extension: str) -> memoryview:
        if extension != "npz":
            raise KeyError(extension)
        return memoryview(npz_bytes(self._boxes.arrays(self._row)))

    def __iter__(self) -> Iterator[str]:
        return iter(("npz",))

    def __len__(self) -> int:
        return 1


class ComputedBoxes:
    """One shard of a column of boxes that follow from the photos, in place of a `JoinedTar`.

    Attributes:
        photos: The shard of the photos.
    """

    __slots__ = ("_cells", "_known", "photos")

    def __init__(self, column: Column, photos: JoinedTar) -> None:
        self._cells, self.photos = column.grids.by_valid_box, photos
        # 8 bytes a photo, as long as the index is remembered: the regions themselves are shared.
        self._known: list[Regions | None] = photos.index.derived.setdefault(
            self._cells, [None] * len(photos.index.samples)
        )

    def members(self, row: int) -> ComputedMembers:
        """See `JoinedTar`."""
        return ComputedMembers(self, row)

    def arrays(self, row: int) -> dict[str, np.ndarray]:
        """See `JoinedTar`."""
        return self.regions(row).arrays

    def regions(self, row: int) -> Regions:
        """See `JoinedTar`. What raises is wrong with the photo's `.json`."""
        return self._known[row] or self._read(row)

    def _read(self, row: int) -> Regions:
        valid = json.loads(str(Members(self.photos, row)["json"], "utf-8"))["valid"]
        x0, y0, x1, y1 = box = tuple(map(float, valid))
        if not (0 <= x0 <= 1 and 0 <= y0 <= 1 and 0 <= x1 <= 1 and 0 <= y1 <= 1):
            raise ValueError("its valid box is no part of the canvas")
        regions = self._cells(box)
        if self._cells.keeps(box):
            self._known[row] = regions
        return regions


@dataclass(frozen=True, slots=True)
class JoinedShard:
    """One shard of several columns: its records, made when asked for."""

    keys: list[str]
    parts: dict[str, JoinedTar | ComputedBoxes]
    """By the names that a record has for them."""
    rows: Sequence[int]
    """Rows in the tars of the records that are read: all, or some of them."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Record:
        return Record(self, self.rows[i])


def read_joined(columns: Sequence[Column], shard: str) -> list[Record]:
    """The samples of one shard with the members of all columns.

    Raises:
        DenseCLIError: See `open_tar` and `join_tars`.
    """
    check_photos(columns)
    joined = join_tars(columns, shard, [open_tar(column, shard) for column in stored_in(columns, shard)])
    return [joined[row] for row in range(len(joined))]


def stored_in(columns: Sequence[Column], shard: str) -> list[Column]:
    """The columns that have a tar of this shard; the others are computed."""
    return [column for column in columns if not column.locate(shard)[0].computed]


def join_tars(columns: Sequence[Column], shard: str, tars: Sequence[OpenTar]) -> JoinedShard:
    """One shard of all columns, from the tars of those that `stored_in` names.

    Raises:
        DenseCLIError: The columns have other keys, or the same in another order, or boxes are to be computed
            without photos.
    """
    stored, keys = stored_in(columns, shard), tars[0].index.keys
    for column, tar in zip(stored, tars, strict=True):
        if tar.index.keys != keys:
            raise DenseCLIError(
                f"Shard {shard} of {column.url} holds other samples than shard {shard} of {stored[0].url}.",
                hint="Delete the receipts of both and build them again, from the same data.",
            )
    joined = {c.part: JoinedTar(tar, c.tar_url(shard)) for c, tar in zip(stored, tars, strict=True)}
    # In the order of the columns, as if all were stored.
    parts = {
        c.part: joined.get(c.part) or ComputedBoxes(c.locate(shard)[0], joined["images"]) for c in columns
    }
    samples = tars[0].index.samples
    return JoinedShard(samples, parts, range(len(samples)))


def decode_image(data: bytes | memoryview) -> np.ndarray:
    """The image (h, w, 3) uint8 RGB in a `.jpg` member. Raises DenseCLIError if it is damaged."""
    try:
        return _decode(data)
    except Unreadable as error:
        raise DenseCLIError(
            f"A stored photo {error.sentence}.", hint="densecli lint names the damaged shard."
        ) from error


def _decode(data: bytes | memoryview) -> np.ndarray:
    return np.asarray(to_rgb(open_picture(data, formats=["JPEG"]).image))
