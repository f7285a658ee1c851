"""The Ray actor that builds units, and the protocol of the work that it does."""

import os
import pickle
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import NamedTuple, Protocol

import ray
import torch
from ray import cloudpickle

from densecli.core import fs
from densecli.core.plugins import load_plugins, plugins, use_plugins
from densecli.core.progress import listener
from densecli.pipeline.unit import Report, Unit

UNITS_PER_WORKER = 2
"""Units that a worker has at once: it reads the photos of one while its teachers work on the other."""


class Builder(Protocol):
    """Builds units, up to UNITS_PER_WORKER at once."""

    def build(self, unit: Unit, stop: Event) -> Report:
        """Builds a unit; raises core.prefetch.Stopped soon after `stop` is set.

        Each call of `stop.is_set` is a sign of life. A worker that gives none for too long is ended.
        """
        ...


class Work(Protocol):
    """The work of a pool: a picklable recipe from which each worker makes its own builder."""

    @property
    def device(self) -> str:
        """A torch device; for `cpu`, workers need no GPU of Ray."""
        ...

    def builder(self, threads: int) -> Builder:
        """Makes a builder with this many threads, in addition to the one that runs its teachers."""
        ...


@dataclass(frozen=True, kw_only=True)
class PackedWork:
    """Pickled work, with everything that a worker needs to unpickle it.

    Attributes:
        pickled: The pickled work.
        plugins: Plug-ins to import first, because the work may have objects of their classes.
        search_path: The module search path of the process that packed it.
        writer: See `fs.writer`: the main process removes temporary files of workers that were killed.
    """

    pickled: bytes
    plugins: Sequence[str]
    search_path: Sequence[str]
    writer: str

    @classmethod
    def pack(cls, work: Work) -> "PackedWork":
        """Pickles the work of this process."""
        load_plugins()
        search_path = [str(Path(folder).absolute()) for folder in sys.path]
        pickled: bytes = cloudpickle.dumps(work)  # type: ignore[no-untyped-call]
        return cls(pickled=pickled, plugins=plugins(), search_path=search_path, writer=fs.writer())

    def unpack(self) -> Work:
        """Unpickles the work in a worker.

        Raises:
            DenseCLIError: A plug-in cannot be imported here.
        """
        fs.write_as(self.writer)
        # After the worker's own folders, so that no local file of the user hides an installed module.
        sys.path += [folder for folder in self.search_path if folder not in sys.path]
        use_plugins(self.plugins)
        work: Work = cloudpickle.loads(self.pickled)
        return work


class Pulse(NamedTuple):
    """What a worker says about itself.

    Attributes:
        message: Its last progress line.
        signs: Number of signs of life since its process began.
    """

    message: str
    signs: int


class _Watched(Event):
    """Tells a builder to stop, and calls `asked` whenever the builder asks whether to."""

    def __init__(self, asked: Callable[[], None]) -> None:
        super().__init__()
        self._asked = asked

    def is_set(self) -> bool:
        self._asked()
        return super().is_set()


class WorkerActor:
    """The process of a worker. It makes its builder, with all teachers, once and keeps it."""

    def __init__(self, work: PackedWork, neighbours: int, threads: int) -> None:
        """Stores the settings; `start` does the rest.

        Args:
            work: The work.
            neighbours: Number of workers, including this one, that share the node's processors.
            threads: Number of torch threads.
        """
        self._work = work
        self._neighbours = neighbours
        self._threads = threads
        self._stops: dict[str, _Watched] = {}
        self._stopped = False
        self._message = ""
        self._signs = 0

    def where(self) -> tuple[str, str]:
        """Ray's id of its node, and the node's name."""
        return ray.get_runtime_context().get_node_id(), socket.gethostname()

    def start(self) -> None:
        """Makes the builder."""
        listener.set(self._remember)
        torch.set_num_threads(self._threads)
        processors = len(os.sched_getaffinity(0))
        self._builder = self._work.unpack().builder(max(1, processors // self._neighbours))

    def build(self, pickled: bytes) -> bytes:
        """Builds a unit. The report is pickled too: Ray takes ten times as long to pickle objects itself."""
        unit: Unit = pickle.loads(pickled)
        listener.set(self._remember)
        self._message = ""
        stop = self._stops[unit.shard] = _Watched(self._sign)
        if self._stopped:
            stop.set()
        try:
            return pickle.dumps(self._builder.build(unit, stop))
        finally:
            del self._stops[unit.shard]

    def pulse(self) -> Pulse:
        """Its signs of life, and the last progress line of the start or of a shard that takes long."""
        return Pulse(self._message, self._signs)

    def drop(self, shard: str) -> None:
        """Drops a unit that another worker has built."""
        if stop := self._stops.get(shard):
            stop.set()

    def stop(self) -> None:
        """Drops the units at hand; a shard that is being written is finished."""
        self._stopped = True
        for stop in list(self._stops.values()):
            stop.set()

    def _remember(self, line: str) -> None:
        self._message = line
        self._sign()

    def _sign(self) -> None:
        self._signs += 1
