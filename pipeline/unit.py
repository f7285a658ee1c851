"""A unit of work and the report on it."""

from dataclasses import dataclass

from densecli.pipeline.sources import Item


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One shard to build.

    Attributes:
        shard: Its name.
        items: Its photos, in order.
    """

    shard: str
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of building a unit.

    Attributes:
        shard: The shard's name.
        samples: Number of samples in the shard.
        skipped: Number of unreadable photos by reason, among the photos that were read this time.
        seconds: Time spent by stage, summed over threads and columns.
    """

    shard: str
    samples: int
    skipped: dict[str, int]
    seconds: dict[str, float]
