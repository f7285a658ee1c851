"""The actor of a worker, called in threads of this process as Ray does."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event

import pytest
import torch

from densecli.core.prefetch import Stopped
from densecli.core.progress import Progress
from densecli.pipeline.unit import Report, Unit
from densecli.pipeline.worker import PackedWork, WorkerActor

FIRST, SECOND = (pickle.dumps(Unit(shard=shard, items=())) for shard in ("000000", "000001"))
running, go_on = Event(), Event()


class Slow:
    """Work that takes until it is told to go on, or to stop."""

    device = "cpu"

    def builder(self, threads: int) -> "Slow":
        with closing(Progress(2, "prompts")) as progress:
            progress.advance(1)
            running.set()
            go_on.wait(30)
        return self

    def build(self, unit: Unit, stop: Event) -> Report:
        running.set()
        while not stop.is_set():
            if go_on.wait(0.01):
                return Report(shard=unit.shard, samples=1, skipped={}, seconds={})
        raise Stopped


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    running.clear()
    go_on.clear()
    before = torch.get_num_threads()
    with ThreadPoolExecutor(4) as pool:
        yield pool
        go_on.set()
    torch.set_num_threads(before)


@pytest.fixture
def actor(threads) -> WorkerActor:
    """A worker that has started."""
    actor = WorkerActor(PackedWork.pack(Slow()), 1, 1)
    started = threads.submit(actor.start)
    running.wait(30)
    assert actor.pulse().message.startswith("1/2 prompts, ")
    assert actor.pulse().signs == 1
    go_on.set()
    started.result()
    running.clear()
    go_on.clear()
    return actor


def test_worker__every_question_whether_to_stop_is_a_sign_of_life(actor, threads):
    before = actor.pulse().signs
    report = threads.submit(actor.build, FIRST)
    running.wait(30)
    while actor.pulse().signs < before + 3:
        assert not report.done()
    go_on.set()
    assert pickle.loads(report.result()).shard == "000000"


def test_worker__drops_one_unit_and_stops_all(actor, threads):
    first, second = threads.submit(actor.build, FIRST), threads.submit(actor.build, SECOND)
    while len(actor._stops) < 2:
        pass
    actor.drop("000000")
    actor.drop("000007")
    assert isinstance(first.exception(), Stopped)
    assert not second.done()
    actor.stop()
    assert isinstance(second.exception(), Stopped)
    # One that comes too late is not begun.
    assert isinstance(threads.submit(actor.build, FIRST).exception(), Stopped)
