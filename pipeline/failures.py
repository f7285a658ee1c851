"""What failed in a run, and what is to blame: a shard, a node, or the setup."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from ray.exceptions import ActorDiedError, OutOfMemoryError

from densecli.core.errors import DenseCLIError, NoSpace, Unreachable
from densecli.core.tables import plain, readable
from densecli.pipeline.unit import PhotoError, Unit, one_line

GOES_ON = "Finished shards are kept: run the same command again once the cause is gone."
"""Hint for a run that could not go on."""
IF_MEMORY = "If dmesg says that memory ran out, lower --workers or --batch-size."
"""Hint for processes that died without a word."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A call that failed.

    Attributes:
        cause: The exception.
        again: Whether it would only occur again on the same node: a DenseCLIError other than Unreachable.
    """

    cause: BaseException
    again: bool = False

    @classmethod
    def of(cls, cause: BaseException) -> "Failure":
        """Makes the failure of an exception. Raises NoSpace: nothing else could be written either."""
        if isinstance(cause, NoSpace):
            raise cause
        return cls(cause=cause, again=isinstance(cause, DenseCLIError) and not isinstance(cause, Unreachable))


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A shard that failed too often. The run has gone on without it.

    Attributes:
        shard: Its name.
        attempts: How often it was tried.
        reason: Its last failure, in one line.
        hint: What the failure says to do about it, if it says so.
    """

    shard: str
    attempts: int
    reason: str
    hint: str = ""

    @classmethod
    def of(cls, unit: Unit, attempts: int, cause: BaseException) -> "SetAside":
        """Makes the record of a unit."""
        photos = ""
        if unit.items and not isinstance(cause, PhotoError | DenseCLIError):
            # A photo that ends its worker cannot be named by it.
            first, last = (plain(readable(unit.items[i].ref)) for i in (0, -1))
            photos = f" (photos {first} to {last})"
        hint = cause.hint if isinstance(cause, DenseCLIError) else IF_MEMORY if _killed(cause) else ""
        return cls(shard=unit.shard, attempts=attempts, reason=f"{one_line(cause)}{photos}", hint=hint)


def gave_up(what: str, cause: BaseException) -> DenseCLIError:
    """The error of a run that cannot go on because of a failure; a DenseCLIError speaks for itself."""
    if isinstance(cause, DenseCLIError):
        return cause
    hint = f"{IF_MEMORY} {GOES_ON}" if _killed(cause) else GOES_ON
    return DenseCLIError(f"{what}, the last time with {one_line(cause)}", hint=hint)


def _killed(cause: BaseException) -> bool:
    return isinstance(cause, ActorDiedError | OutOfMemoryError)


class NodeFailures:
    """Finds nodes that are to blame: what failed there was built elsewhere, again and again."""

    def __init__(self, limit: int) -> None:
        """Blames no node yet.

        Args:
            limit: Number of failures in a row for which a node is to blame before it is left out.
        """
        self._limit = limit
        # For each failure the node, and which of the shards at hand have not been built elsewhere since.
        self._open: list[tuple[str, set[str]]] = []
        self._blamed: Counter[str] = Counter()

    def failed(self, node: str, shards: Collection[str]) -> None:
        """Notes a failure on a node, with the shards that its worker had at hand."""
        if shards:
            self._open.append((node, set(shards)))

    def built(self, shard: str, node: str) -> list[str]:
        """Notes that a node built a shard. Returns the nodes that are now to be left out."""
        self._blamed.pop(node, None)
        if not self._open:
            return []
        guilty = []
        for failure in self._open:
            where, shards = failure
            if where != node and shard in shards:
                shards.remove(shard)
                if not shards:
                    self._blamed[where] += 1
                    if self._blamed[where] == self._limit:
                        guilty.append(where)
        # A node that works was not to blame.
        self._open = [(where, shards) for where, shards in self._open if shards and where != node]
        return guilty

    def gave_up(self, shard: str) -> None:
        """Notes that a shard fails everywhere: no node is to blame for a failure in which it was at hand."""
        self._open = [(where, shards) for where, shards in self._open if shard not in shards]
