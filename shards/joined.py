"""Joins one shard of several columns by key, into records."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.pictures import Unreadable, open_picture, to_rgb
from densecli.shards.column import Column
from densecli.shards.npz import decode_npz
from densecli.shards.regions import Regions
from densecli.shards.tars import OpenTar, open_tar


@dataclass(frozen=True)
class Record:
    """One sample of joined columns.

    Attributes:
        key: Key of the sample.
        parts: Members by extension, under "images", "regions" and the names of teachers.
    """

    key: str
    parts: dict[str, "Members"]

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
        """The boxes. Raises DenseCLIError for damaged ones."""
        arrays = self.arrays("regions")
        with self.reading("regions"):
            return Regions.of(arrays)

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
            return decode_npz(self.parts[part]["npz"])

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


def read_joined(columns: Sequence[Column], shard: str) -> list[Record]:
    """The samples of one shard with the members of all columns.

    Raises:
        DenseCLIError: See `open_tar` and `join_tars`.
    """
    joined = join_tars(columns, shard, [open_tar(column, shard) for column in columns])
    return [joined[row] for row in range(len(joined))]


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
