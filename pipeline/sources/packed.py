"""Photos as they travel to a worker: a few texts and arrays in place of hundreds of tuples."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from densecli.core.lazy_sequence import LazySequence
from densecli.pipeline.sources.base import Item, Span


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts, joined.

    Attributes:
        joined: All of them, one after another.
        lengths: (N,) characters of each.
    """

    joined: str
    lengths: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """Joins texts."""
        return cls("".join(texts), np.fromiter(map(len, texts), np.int32, len(texts)))

    def split(self) -> list[str]:
        """Returns the texts."""
        ends = accumulate(self.lengths.tolist(), initial=0)
        return [self.joined[start:end] for start, end in pairwise(ends)]


@dataclass(frozen=True, eq=False)
class Spans:
    """Where the bytes of photos, or of their annotations, are.

    Attributes:
        files: The distinct files.
        rows: (N, 3) int64: number of the file, offset and size. A file of -1 stands for no span, a size of -1
            for the whole file.
    """

    files: tuple[str, ...]
    rows: np.ndarray

    @classmethod
    def of(cls, spans: Sequence[Span | None]) -> "Spans":
        """Packs spans."""
        numbers: dict[str, int] = {}
        rows = [
            (-1, 0, 0)
            if span is None
            else (numbers.setdefault(span[0], len(numbers)), span[1], -1 if span[2] is None else span[2])
            for span in spans
        ]
        return cls(tuple(numbers), np.array(rows, np.int64).reshape(-1, 3))

    def unpack(self) -> Iterator[Span | None]:
        """Yields the spans."""
        for file, offset, size in self.rows.tolist():
            yield None if file < 0 else Span(self.files[file], offset, None if size < 0 else size)


@dataclass(frozen=True, eq=False)
class PackedItems(LazySequence[Item]):
    """The photos of a unit. They become items where they are read."""

    keys: Texts
    refs: Texts
    photos: Spans
    masks: Spans

    @classmethod
    def of(cls, items: Iterable[Item]) -> "PackedItems":
        """Packs items."""
        keys, refs, photos, masks = tuple(zip(*items, strict=True)) or ((), (), (), ())
        return cls(Texts.of(keys), Texts.of(refs), Spans.of(photos), Spans.of(masks))

    def __len__(self) -> int:
        return len(self.keys.lengths)

    def at(self, i: int) -> Item:
        """See `LazySequence.at`."""
        return self._items[i]

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __reduce__(self) -> tuple[object, ...]:
        # Without the items, if they were made here.
        return PackedItems, (self.keys, self.refs, self.photos, self.masks)

    @cached_property
    def _items(self) -> list[Item]:
        columns = (self.keys.split(), self.refs.split(), self.photos.unpack(), self.masks.unpack())
        return [Item(*row) for row in zip(*columns, strict=True)]


class Parted(LazySequence[Item]):
    """A listing that makes its parts without making their items."""

    @abstractmethod
    def part(self, places: np.ndarray) -> Sequence[Item]:
        """Returns the photos at these places, in that order, as few arrays."""


def part(items: Sequence[Item], places: np.ndarray) -> Sequence[Item]:
    """Returns some photos of a listing as they travel to a worker.

    Args:
        items: The listing.
        places: (N,) positions in it.
    """
    if isinstance(items, Parted):
        return items.part(places)
    return PackedItems.of([items[place] for place in places.tolist()])
