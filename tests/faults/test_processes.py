"""Processes that die, are told to go, or meet another of their kind: the store ends the same."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from building import build_here
from clusters import ray_cluster
from processes import descendants

from densecli.pipeline.build_shards import build_shards
from densecli.pipeline.config import BuildConfig

pytestmark = pytest.mark.ray

# Subprocesses start where `pipeline` can be imported from.
ROOT = Path(__file__).parents[2]
TIMEOUT = 300.0

CONFIG = BuildConfig(
    dataset="scenes",
    split="val",
    limit=72,
    shard_size=3,
    teachers=("crops-scenes-s",),
    weights={"scenes-s": "random:0"},
    views=2,
    workers=2,
    device="cpu",
)
SHARDS = 24
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The tars of a build that nothing happened to, in one process and without Ray."""
    store = tmp_path_factory.mktemp("undisturbed")
    build_here(replace(CONFIG, store=str(store)))
    return tars(store)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command line on the store tmp_path/"store", and leaves none of its processes behind."""
    flags = f"""
        --dataset scenes --split {CONFIG.split} --limit {CONFIG.limit} --shard-size {CONFIG.shard_size}
        --teacher {CONFIG.teachers[0]} --weights scenes-s=random:0 --views {CONFIG.views}
        --workers {CONFIG.workers} --device cpu"""
    started = []

    def popen(*more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "densecli", "build-shards", *flags.split()]
        command += ["--store", str(tmp_path / "store"), *more]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        for pid in [process.pid, *descendants(process.pid)]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def tars(store: Path) -> Files:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*.tar"))}


def receipts(store: Path) -> dict[str, int]:
    """When each receipt of a shard was written."""
    found = [path for path in sorted(store.rglob("*.json")) if path.stem.isdigit()]
    return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in found}


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.02)


def wait_until_gone(pids: Iterable[int]) -> None:
    wait_until(lambda: not any(map(alive, pids)))


def wait_for_targets(store: Path, count: int) -> None:
    wait_until(lambda: len(list(store.glob("targets/*/0*.json"))) >= count)


def finished(process: subprocess.Popen[str]) -> str:
    """Standard error of a build that ended well."""
    _, output = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    return output


def kept(before: dict[str, int], store: Path) -> bool:
    """Whether no finished shard was written again."""
    after = receipts(store)
    return all(after[name] == when for name, when in before.items())


@pytest.mark.slow
def test_kill_9__of_a_worker_and_of_the_main_process(start, undisturbed, tmp_path, survived):
    store = tmp_path / "store"
    build = start()
    wait_for_targets(store, 2)
    worker = next(pid for pid, args in descendants(build.pid).items() if args.startswith("ray::WorkerActor"))
    os.kill(worker, signal.SIGKILL)
    before_worker = receipts(store)
    wait_for_targets(store, 8)
    processes = [build.pid, *descendants(build.pid)]
    assert worker not in processes
    build.kill()
    build.wait()
    wait_until_gone(processes)
    before_the_kill, begun = receipts(store), tars(store)
    assert kept(before_worker, store)
    assert 8 <= len(list(store.glob("targets/*/0*.json"))) < SHARDS
    assert len(begun) - len(before_the_kill) <= CONFIG.workers

    finished(start())
    assert kept(before_the_kill, store)
    assert tars(store) == undisturbed
    survived("kill -9 of a worker")
    survived("kill -9 of the build")


@pytest.mark.slow
def test_signals__end_the_build_in_good_order(start, undisturbed, tmp_path, survived):
    store, done = tmp_path / "store", 0
    for number in (signal.SIGTERM, signal.SIGINT):
        build = start()
        wait_for_targets(store, done + 2)
        processes = descendants(build.pid)
        # Ctrl-C reaches all that are in the terminal's group.
        (os.killpg if number == signal.SIGINT else os.kill)(build.pid, number)
        _, output = build.communicate(timeout=TIMEOUT)
        assert build.returncode == 128 + number
        assert f"Error: {number.name} stopped the build" in output
        assert "Hint: The same command continues" in output
        assert "Traceback" not in output
        wait_until_gone(processes)
        assert not list(store.rglob("*.tmp"))
        before = receipts(store)
        assert len(tars(store)) == len(before)
        done = len(list(store.glob("targets/*/0*.json")))
        assert done < SHARDS
        survived(number.name)
    finished(start())
    assert kept(before, store)
    assert tars(store) == undisturbed


@pytest.mark.slow
def test_two_builds__on_one_store_both_end_well(start, undisturbed, tmp_path, survived):
    summaries = [tmp_path / "a.json", tmp_path / "b.json"]
    builds = [start("--json", str(summary)) for summary in summaries]
    for build in builds:
        assert f"{CONFIG.limit}/{CONFIG.limit} photos" in finished(build)
    built = [json.loads(summary.read_text()) for summary in summaries]
    # They share the work: only a shard at which they met may be built twice.
    assert SHARDS <= sum(each["shards"] for each in built) <= 1.1 * SHARDS
    assert all(each["shards"] + each["elsewhere"] >= SHARDS for each in built)
    assert tars(tmp_path / "store") == undisturbed
    # Photos and labels: the boxes are computed.
    assert len(receipts(tmp_path / "store")) == 2 * SHARDS
    assert not list((tmp_path / "store").rglob("*.tmp"))
    survived("two builds on one store")


@pytest.mark.slow
def test_node_loss__the_nodes_that_are_left_do_its_part(undisturbed, tmp_path, survived, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    store = tmp_path / "store"
    lost: dict[str, int] = {}
    with ray_cluster(num_cpus=0) as cluster:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

        def lose_one() -> None:
            wait_for_targets(store, 4)
            cluster.remove_node(nodes[1], allow_graceful=False)
            lost.update(receipts(store))

        losing = Thread(target=lose_one)
        losing.start()
        summary = build_shards(replace(CONFIG, store=str(store), ray_address=cluster.address))
        losing.join()
    assert summary["shards"] == SHARDS
    assert 4 <= len([name for name in lost if name.startswith("targets")]) < SHARDS
    assert kept(lost, store)
    assert tars(store) == undisturbed
    survived("loss of a node")


@pytest.mark.slow
def test_head_node_loss__the_same_command_goes_on_from_another_cluster(
    start, undisturbed, tmp_path, survived, monkeypatch
):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    store = tmp_path / "store"
    with ray_cluster(num_cpus=CONFIG.workers) as cluster:
        build = start("--ray-address", cluster.address)
        wait_for_targets(store, 4)
        cluster.remove_node(cluster.head_node, allow_graceful=False)
        _, output = build.communicate(timeout=TIMEOUT)
    assert build.returncode == 1
    assert re.search(r"Error: The head node of the Ray cluster, [\d.:]+, does not answer any more\.", output)
    before = receipts(store)
    assert len(list(store.glob("targets/*/0*.json"))) < SHARDS

    with ray_cluster(num_cpus=CONFIG.workers) as other:
        finished(start("--ray-address", other.address))
    assert kept(before, store)
    assert tars(store) == undisturbed
    survived("loss of the head node")
