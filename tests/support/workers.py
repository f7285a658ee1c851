"""Workers in threads of this process, for tests without Ray: they die, freeze and hang on demand."""

import pickle
from collections.abc import Callable, Collection
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from ray.exceptions import ActorDiedError

from densecli.core.prefetch import Stopped
from densecli.pipeline.unit import Report, Unit
from densecli.pipeline.worker import Pulse

Build = Callable[["ThreadWorker", Unit], None]


@dataclass(frozen=True)
class Call:
    """The reference to a call's result, as Ray gives it."""

    result: Future[Any]

    def future(self) -> Future[Any]:
        return self.result


@dataclass(frozen=True)
class Method:
    worker: "ThreadWorker"
    name: str

    def remote(self, *args: Any) -> Call:
        return self.worker.call(self.name, *args)


class ThreadWorker:
    """Does what `WorkerActor` does, each call in a thread. `build` and `begin` are the test's."""

    def __init__(self, node: str, build: Build, begin: Callable[["ThreadWorker"], None]) -> None:
        self.node = node
        self.frozen = False
        self.ended = Event()
        self.signs = 0
        self.message = ""
        self.units: list[str] = []
        self._build, self._begin = build, begin
        self._stops: dict[str, Event] = {}
        self._futures: set[Future[Any]] = set()

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    def call(self, name: str, *args: Any) -> Call:
        future: Future[Any] = Future()
        self._futures.add(future)
        if self.ended.is_set():
            future.set_exception(ActorDiedError())
        elif not self.frozen:
            Thread(target=self._run, args=(future, name, *args), daemon=True).start()
        return Call(future)

    def die(self) -> None:
        """Ends as a killed process does: no call returns any more."""
        self.ended.set()
        for future in list(self._futures):
            with suppress(InvalidStateError):
                future.set_exception(ActorDiedError())

    def stopped(self, shard: str) -> bool:
        """Whether a unit is to be dropped. A sign of life, as in `WorkerActor`."""
        self.signs += 1
        return self._stops[shard].is_set()

    def hang(self, shard: str, *, alive: bool = False) -> None:
        """Does not return before the worker ends, or, if it is alive, before the unit is dropped."""
        while not self.ended.wait(0.01):
            if alive and self.stopped(shard):
                raise Stopped

    def _run(self, future: Future[Any], name: str, *args: Any) -> None:
        try:
            result = getattr(self, f"_do_{name}")(*args)
        except Exception as error:
            with suppress(InvalidStateError):
                future.set_exception(error)
        else:
            if not self.frozen:
                with suppress(InvalidStateError):
                    future.set_result(result)

    def _do_where(self) -> tuple[str, str]:
        return self.node, f"host-of-{self.node}"

    def _do_start(self) -> None:
        self._begin(self)

    def _do_pulse(self) -> Pulse:
        return Pulse(self.message, self.signs)

    def _do_build(self, pickled: bytes) -> bytes:
        unit = pickle.loads(pickled)
        self.units.append(unit.shard)
        self._stops[unit.shard] = Event()
        self._build(self, unit)
        return pickle.dumps(Report(shard=unit.shard, samples=1, skipped={}, seconds={}))

    def _do_drop(self, shard: str) -> None:
        self._stops[shard].set()

    def _do_stop(self) -> None:
        for stop in self._stops.values():
            stop.set()


@dataclass
class ThreadLauncher:
    """Starts workers on the nodes in turn, as many as each has room for."""

    nodes: Collection[str]
    build: Build = lambda worker, unit: None
    begin: Callable[[ThreadWorker], None] = lambda worker: None
    cpus: int = 1
    gpus: float = 0
    started: list[ThreadWorker] = field(default_factory=list)

    def start(self, left_out: Collection[str]) -> ThreadWorker:
        alive = [worker.node for worker in self.started if not worker.ended.is_set()]
        node = min((node for node in self.nodes if node not in left_out), key=alive.count)
        self.started.append(ThreadWorker(node, self.build, self.begin))
        return self.started[-1]

    def check(self) -> None:
        pass

    def end(self, worker: ThreadWorker) -> None:
        worker.die()

    def node_of(self, worker: ThreadWorker) -> tuple[str, str] | None:
        return worker.node, f"host-of-{worker.node}"

    def hosts(self) -> set[str]:
        return set(self.nodes)
