"""A run that one bad part cannot end: bad shards, nodes and workers, with workers in threads and no Ray."""

import time
from collections import Counter
from collections.abc import Iterator
from threading import Event
from types import SimpleNamespace

import pytest
from workers import ThreadLauncher, ThreadWorker

from densecli.core.errors import DenseCLIError, NoSpace
from densecli.pipeline import run_units as scheduler
from densecli.pipeline import worker_pool
from densecli.pipeline.config import FailureSettings
from densecli.pipeline.failures import NodeFailures, SetAside
from densecli.pipeline.run_units import run_units
from densecli.pipeline.unit import Report, Unit
from densecli.pipeline.worker_pool import WorkerPool

WORK = SimpleNamespace(device="cpu")
DEFAULT = FailureSettings()
FAST = FailureSettings(stall_timeout=0.3)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds or minutes takes a fraction of a second."""
    monkeypatch.setattr(worker_pool, "PULSE_SECONDS", 0.02)
    monkeypatch.setattr(worker_pool, "STOP_TIMEOUT", 0.2)
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.02)


def units(count: int) -> Iterator[Unit]:
    return (Unit(shard=f"{i:06d}", items=()) for i in range(count))


class Run:
    """A finished run: `built` and `failed` by shard, what was said, and the pool."""

    def __init__(
        self,
        launcher: ThreadLauncher,
        count: int,
        workers: int,
        settings: FailureSettings = DEFAULT,
        said: list[str] | None = None,
    ) -> None:
        self.said = [] if said is None else said
        self.pool = WorkerPool(WORK, workers, None, self.said.append, settings, launcher=launcher)
        outcomes = list(run_units(units(count), self.pool, settings))
        self.built = [outcome.shard for outcome in outcomes if isinstance(outcome, Report)]
        self.failed = {outcome.shard: outcome for outcome in outcomes if isinstance(outcome, SetAside)}
        self.tries = Counter(shard for worker in launcher.started for shard in worker.units)


def test_run_units__all_are_built_once():
    run = Run(ThreadLauncher("ab"), 50, workers=4)
    assert sorted(run.built) == [unit.shard for unit in units(50)]
    assert set(run.tries.values()) == {1}
    assert not run.failed and not run.said


def test_run_units__a_shard_that_keeps_failing_is_set_aside_and_the_rest_is_built():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        if unit.shard == "000003":
            raise OSError("the disk is on fire")

    run = Run(ThreadLauncher("a", build), 20, workers=2)
    assert len(run.built) == 19
    assert run.failed["000003"] == SetAside(
        shard="000003", attempts=3, reason="OSError: the disk is on fire", hint=""
    )
    assert run.tries["000003"] == 3
    assert run.said == ["The shard 000003 is set aside: it failed 3 times. OSError: the disk is on fire"]


def test_run_units__an_error_that_would_only_occur_again_is_not_tried_again_on_the_same_node():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        if unit.shard == "000003":
            raise DenseCLIError("The teacher returned NaN.", hint="Check its weights.")

    run = Run(ThreadLauncher("a", build), 20, workers=2)
    assert (run.tries["000003"], run.failed["000003"].hint) == (1, "Check its weights.")
    run = Run(ThreadLauncher("ab", build), 20, workers=2)
    assert (run.tries["000003"], len(run.built)) == (2, 19)


def test_run_units__too_many_failed_shards_end_it():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        raise DenseCLIError("The weights are broken.")

    run = Run(ThreadLauncher("a", build), 1000, workers=2, settings=FailureSettings(max_failed_shards=4))
    assert 5 <= len(run.failed) <= 8
    assert len(run.tries) < 20


def test_run_units__a_full_store_ends_it_at_once():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        raise NoSpace("Could not write: no space.")

    with pytest.raises(NoSpace):
        Run(ThreadLauncher("a", build), 1000, workers=2)


def test_run_units__a_shard_that_kills_its_workers_costs_no_other_an_attempt():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        time.sleep(0.01)
        if unit.shard in ("000003", "000007"):
            worker.die()
            worker.hang(unit.shard)

    run = Run(ThreadLauncher("ab", build), 20, workers=3, settings=FailureSettings(max_attempts=2))
    assert len(run.built) == 18
    assert {shard: failed.attempts for shard, failed in run.failed.items()} == {"000003": 2, "000007": 2}
    assert not run.pool.left_out


def test_run_units__a_shard_that_hangs_is_set_aside():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        if unit.shard == "000003":
            worker.hang(unit.shard)

    run = Run(ThreadLauncher("a", build), 10, workers=1, settings=FAST)
    assert len(run.built) == 9
    assert run.failed["000003"].reason.startswith("Silent: There was no sign of life for 0.3 seconds")


def test_run_units__a_worker_that_gives_signs_of_life_may_take_its_time():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        for _ in range(300):
            time.sleep(0.01)
            worker.stopped(unit.shard)

    run = Run(ThreadLauncher("a", build), 2, workers=1, settings=FailureSettings(stall_timeout=2))
    assert (len(run.built), set(run.tries.values())) == (2, {1})


def test_run_units__a_stopped_process_is_noticed_and_its_shards_are_built_by_others(monkeypatch):
    monkeypatch.setattr(worker_pool, "LOST_SECONDS", 0.3)

    def build(worker: ThreadWorker, unit: Unit) -> None:
        time.sleep(0.01)
        if worker is launcher.started[0] and len(worker.units) > 3:
            worker.frozen = True
            worker.hang(unit.shard)

    launcher = ThreadLauncher("ab", build)
    run = Run(launcher, 20, workers=2)
    assert sorted(run.built) == [unit.shard for unit in units(20)]
    assert launcher.started[0].ended.is_set() and len(launcher.started) > 2
    assert not run.failed


def test_run_units__a_main_process_that_was_suspended_does_not_blame_its_workers(monkeypatch):
    now = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(worker_pool, "time", SimpleNamespace(monotonic=lambda: next(now)))
    launcher = ThreadLauncher("a")
    assert len(Run(launcher, 50, workers=2).built) == 50
    assert len(launcher.started) == 2


def test_run_units__a_slow_shard_is_given_to_a_second_worker_and_the_first_to_finish_wins(monkeypatch):
    monkeypatch.setattr(scheduler, "SLOW_SECONDS", 0.2)

    def build(worker: ThreadWorker, unit: Unit) -> None:
        if unit.shard == "000020" and tries.append(worker) is None and len(tries) == 1:
            worker.hang(unit.shard, alive=True)

    tries: list[ThreadWorker] = []
    run = Run(ThreadLauncher("a", build), 21, workers=2, settings=FailureSettings(slow_factor=1))
    assert len(run.built) == 21 and len(tries) == 2 and tries[0] is not tries[1]
    assert tries[0]._stops["000020"].is_set()
    assert any(line.startswith("The shard 000020 takes longer than ") for line in run.said)


def test_run_units__a_node_whose_failures_do_not_occur_elsewhere_is_left_out():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        time.sleep(0.005)
        if worker.node == "b":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    launcher = ThreadLauncher("abc", build)
    run = Run(launcher, 60, workers=3)
    assert sorted(run.built) == [unit.shard for unit in units(60)]
    assert not run.failed
    assert set(run.pool.left_out) == {"b"}
    assert run.said == [
        "The node host-of-b (b) is left out: shards that failed there were built elsewhere, the last time "
        "with RuntimeError: CUDA error: an illegal memory access was encountered"
    ]
    assert run.pool.named_left_out()[0].startswith("host-of-b (b): ")
    # Its worker has moved.
    assert [worker.node for worker in launcher.started].count("b") == 1 and len(launcher.started) == 4


def test_run_units__what_failed_on_a_bad_node_is_no_attempt():
    def build(worker: ThreadWorker, unit: Unit) -> None:
        time.sleep(0.005)
        if worker.node != "a":
            raise RuntimeError("CUDA error")

    def begin(worker: ThreadWorker) -> None:
        # Some shards have failed on both bad nodes before a good one is ready.
        while worker.node == "a" and not any("is set aside: it failed 2 times" in line for line in said):
            time.sleep(0.01)

    said: list[str] = []
    settings = FailureSettings(max_attempts=2, max_failed_shards=1000)
    run = Run(ThreadLauncher("abc", build, begin), 60, workers=3, settings=settings, said=said)
    assert set(run.pool.left_out) == {"b", "c"}
    assert len(run.built) == 60 and not run.failed


def test_run_units__a_bad_node_cannot_use_up_the_attempts_while_the_workers_of_others_start():
    def begin(worker: ThreadWorker) -> None:
        if worker.node == "a":
            first_failures.wait(30)

    def build(worker: ThreadWorker, unit: Unit) -> None:
        if worker.node == "b":
            failed.append(unit.shard)
            if len(failed) >= 30:
                first_failures.set()
            raise DenseCLIError("The GPU of this node computes NaN.")
        time.sleep(0.005)

    failed: list[str] = []
    first_failures = Event()
    run = Run(ThreadLauncher("ab", build, begin), 30, workers=2)
    assert len(run.built) == 30 and not run.failed
    assert set(run.pool.left_out) == {"b"}
    assert sorted(failed) == sorted(set(failed))


def test_run_units__without_a_worker_elsewhere_a_shard_is_tried_again_where_it_failed(monkeypatch):
    monkeypatch.setattr(scheduler, "ELSEWHERE_SECONDS", 0.2)

    def build(worker: ThreadWorker, unit: Unit) -> None:
        if unit.shard not in failed:
            failed.append(unit.shard)
            raise OSError("once")

    failed: list[str] = []
    # One worker: the other node has room, and yet no worker.
    run = Run(ThreadLauncher("ab", build), 4, workers=1)
    assert len(run.built) == 4 and set(run.tries.values()) == {2}


@pytest.mark.parametrize("dies", [False, True])
def test_worker_pool__a_node_on_which_workers_cannot_start_is_left_out(dies):
    def begin(worker: ThreadWorker) -> None:
        if worker.node == "b":
            if dies:
                worker.die()
                worker.hang("")
            raise RuntimeError("no CUDA device is available")

    launcher = ThreadLauncher("ab", lambda worker, unit: time.sleep(0.01), begin)
    run = Run(launcher, 40, workers=4)
    assert len(run.built) == 40
    assert set(run.pool.left_out) == {"b"}
    assert run.said[0].startswith("The node host-of-b (b) is left out: a worker failed to start 3 times")


def test_worker_pool__a_node_that_says_why_is_left_out_at_once():
    def begin(worker: ThreadWorker) -> None:
        if worker.node == "b":
            raise DenseCLIError("The node b does not see the store.")

    launcher = ThreadLauncher("ab", begin=begin)
    run = Run(launcher, 40, workers=4)
    assert len(run.built) == 40
    assert [worker.node for worker in launcher.started].count("b") == 2


@pytest.mark.parametrize("nodes", ["a", "abcdefgh"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DenseCLIError("The weights are broken."), "^The weights are broken.$"),
        (OSError("no"), "^A worker failed to start 3 times .*, the last time with OSError: no$"),
    ],
)
def test_worker_pool__a_start_that_fails_everywhere_ends_the_run(nodes, error, message):
    def begin(worker: ThreadWorker) -> None:
        raise error

    with pytest.raises(DenseCLIError, match=message):
        Run(ThreadLauncher(nodes, begin=begin), 5, workers=2)


@pytest.mark.parametrize("starting", [False, True])
def test_worker_pool__says_how_far_a_worker_is_while_no_shard_is_finished(monkeypatch, starting):
    monkeypatch.setattr(worker_pool, "SILENCE", 0.05)
    heard = Event()

    def work(worker: ThreadWorker, unit: Unit | None = None) -> None:
        if starting == (unit is None):
            worker.message = "1/2 photos"
            heard.wait(30)

    def say(line: str) -> None:
        said.append(line)
        if line == "1/2 photos":
            heard.set()

    said: list[str] = []
    pool = WorkerPool(WORK, 1, say=say, launcher=ThreadLauncher("a", work, work))
    assert len(list(run_units(units(1), pool, DEFAULT))) == 1
    assert said.count("1/2 photos") == 1


def test_run_units__units_that_cannot_be_had_yet_are_asked_for_again():
    late = iter([None, *units(2), None, None])
    pool = WorkerPool(WORK, 1, launcher=ThreadLauncher("a"))
    assert len(list(run_units(late, pool, FailureSettings()))) == 2


def test_node_failures__a_poisoned_shard_blames_no_node():
    nodes = NodeFailures(limit=2)
    for i in range(5):
        # The poison killed a worker of a that had another shard at hand too.
        nodes.failed("a", ["poison", f"{i}"])
        assert nodes.built(f"{i}", "b") == []
    nodes.gave_up("poison")
    assert nodes.built("poison", "b") == []


def test_node_failures__a_node_that_works_now_and_then_stays():
    nodes = NodeFailures(limit=2)
    for i in range(5):
        nodes.failed("a", [f"{i}"])
        assert nodes.built(f"{i}", "b") == []
        assert nodes.built(f"good-{i}", "a") == []
    nodes.failed("a", ["x"])
    nodes.failed("a", ["y"])
    assert nodes.built("x", "b") == []
    assert nodes.built("y", "c") == ["a"]
