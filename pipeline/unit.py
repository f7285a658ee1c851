"""A unit of work and the report on it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import Stopped
from densecli.core.tables import plain
from densecli.pipeline.sources import Item
from densecli.shards.mask_plan import MaskCounts


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One shard to build.

    Attributes:
        shard: Its name.
        items: Its photos, in order; few arrays, as it travels to a worker.
    """

    shard: str
    items: Sequence[Item]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of building a unit.

    Attributes:
        shard: The shard's name.
        samples: Number of samples in the shard.
        skipped: Number of unreadable photos by reason, among the photos that were read this time.
        seconds: Time spent by stage, summed over threads and columns.
        skipped_first: The first of the skipped photos by reason.
        masks: What became of the photos' masks, if regions were made of them.
    """

    shard: str
    samples: int
    skipped: dict[str, int]
    seconds: dict[str, float]
    skipped_first: dict[str, list[str]] = field(default_factory=dict)
    masks: MaskCounts | None = None


class PhotoError(Exception):
    """An exception that a photo caused, with the photo's name."""

    @classmethod
    def of(cls, error: Exception, photo: str) -> "PhotoError":
        """Makes the error for an exception at a photo."""
        return cls(f"{one_line(error)}, at the photo {plain(photo)}")


def one_line(error: BaseException) -> str:
    """The type and the message of an exception, in one line; a sentence alone needs no type."""
    lines = str(error).strip().splitlines()
    if isinstance(error, PhotoError | DenseCLIError):
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def at_photo(photo: str) -> Iterator[None]:
    """Turns exceptions in the block into a PhotoError, unless they are already a sentence."""
    try:
        yield
    except (DenseCLIError, Stopped):
        raise
    except Exception as error:
        raise PhotoError.of(error, photo) from error
