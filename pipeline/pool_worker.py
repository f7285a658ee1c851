"""A worker as its pool sees it, and how its units ended."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ray.actor import ActorHandle

from densecli.pipeline.failures import Failure
from densecli.pipeline.unit import Report, Unit


class Node(NamedTuple):
    """A node of the cluster: Ray's id of it, and what people call it."""

    id: str
    host: str

    def __str__(self) -> str:
        return f"{self.host} ({self.id[:8]})"


@dataclass(eq=False)
class Worker:
    """A worker, as the pool sees it.

    Attributes:
        handle: The actor.
        node: Where it is; None until its process has answered.
        units: The units it is building, by shard.
        exclusive: Whether it gets no second unit while it has one.
        signs: Its signs of life when it was last asked, and when their number last changed.
        asked: When it was asked for the answer that it still owes; None if it owes none.
        alive: Whether the pool counts on it.
    """

    handle: ActorHandle[Any]
    node: Node | None = None
    units: dict[str, Unit] = field(default_factory=dict)
    exclusive: bool = False
    message: str = ""
    signs: int = -1
    last_sign: float = 0.0
    asked: float | None = None
    alive: bool = True
    calls: set[Future[Any]] = field(default_factory=set)


class Outcome(NamedTuple):
    """How a unit ended, or several at once whose worker died.

    Attributes:
        worker: The worker.
        units: One unit, or all that a worker had at hand when it died.
        result: The report, or why there is none.
        died: Whether the worker has died.
    """

    worker: Worker
    units: tuple[Unit, ...]
    result: Report | Failure
    died: bool = False
