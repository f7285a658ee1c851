"""A column of several stores, read as one."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from densecli.core.lazy_sequence import LazySequence
from densecli.shards.column import Column
from densecli.shards.receipts import Receipt


class ShardNames(LazySequence[str]):
    """The names of the shards of all parts, made when asked for: PART/SHARD."""

    def __init__(self, counts: Sequence[int]) -> None:
        """counts: Number of shards of each part."""
        self._ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def at(self, i: int) -> str:
        """See `LazySequence.at`."""
        part = bisect_right(self._ends, i)
        return f"{part}/{i - (self._ends[part - 1] if part else 0):06d}"


@dataclass(frozen=True, kw_only=True)
class PartedColumn(Column):
    """One column of several stores. A shard is called PART/SHARD.

    Attributes:
        parts: The column of each store.
    """

    parts: tuple[Column, ...]

    @property
    def computed(self) -> bool:
        """Whether no part has stored shards."""
        return all(part.computed for part in self.parts)

    def locate(self, shard: str) -> tuple[Column, str]:
        """The column and the name of a shard in its own store."""
        part, _, name = shard.partition("/")
        return self.parts[int(part)], name

    def tar_url(self, shard: str) -> str:
        """See `Column`."""
        column, name = self.locate(shard)
        return column.tar_url(name)

    def receipt_url(self, shard: str) -> str:
        """See `Column`."""
        column, name = self.locate(shard)
        return column.receipt_url(name)

    def parsed_receipt(self, shard: str, data: bytes) -> Receipt:
        """See `Column`; the receipt has the shard's name here."""
        column, name = self.locate(shard)
        return replace(column.parsed_receipt(name, data), shard=shard)

    def has(self, shard: str) -> bool:
        """See `Column`."""
        column, name = self.locate(shard)
        return column.has(name)

    def missing(self) -> list[str]:
        """See `Column`."""
        return [f"{part}/{shard}" for part, column in enumerate(self.parts) for shard in column.missing()]
