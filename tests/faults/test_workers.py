"""Workers that are killed, stopped or hang, and nodes that break, on a real Ray of two nodes."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
import ray
from clusters import ray_cluster

from densecli.pipeline import worker_pool
from densecli.pipeline.cluster import connected
from densecli.pipeline.config import FailureSettings
from densecli.pipeline.failures import SetAside
from densecli.pipeline.run_units import run_units
from densecli.pipeline.unit import Report, Unit
from densecli.pipeline.worker_pool import WorkerPool

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KILLS, KILLS_ONCE, STOPS_ONCE, HANGS_ONCE = "000002", "000005", "000011", "000014"
"""Shards: one kills every worker that builds it; others break the first one."""
SHARDS = 24


class Work:
    """Work that leaves a file in a folder for every try of a shard, and breaks as its shards' names say."""

    device = "cpu"

    def __init__(self, folder: Path, bad_node: str) -> None:
        self.folder, self.bad_node = folder, bad_node

    def builder(self, threads: int) -> "Work":
        return self

    def build(self, unit: Unit, stop: Event) -> Report:
        node = ray.get_runtime_context().get_node_id()
        tries = len(list(self.folder.glob(f"{unit.shard}.*")))
        (self.folder / f"{unit.shard}.{node}.{uuid4().hex}").touch()
        stop.is_set()
        time.sleep(0.1)
        if node == self.bad_node:
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        if unit.shard == KILLS or (unit.shard == KILLS_ONCE and not tries):
            os.kill(os.getpid(), signal.SIGKILL)
        if unit.shard == STOPS_ONCE and not tries:
            os.kill(os.getpid(), signal.SIGSTOP)
        if unit.shard == HANGS_ONCE and not tries:
            time.sleep(10_000)
        return Report(shard=unit.shard, samples=1, skipped={}, seconds={})


def test_run_units__whatever_breaks_all_other_shards_are_built(tmp_path, survived, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(worker_pool, "LOST_SECONDS", 10.0)
    settings = FailureSettings(max_attempts=2, stall_timeout=10)
    said: list[str] = []
    with ray_cluster(num_cpus=2) as cluster, connected(cluster.address, 3):
        bad = cluster.add_node(num_cpus=1)
        pool = WorkerPool(Work(tmp_path, bad.node_id), 3, None, said.append, settings)
        units = (Unit(shard=f"{i:06d}", items=()) for i in range(SHARDS))
        outcomes = list(run_units(units, pool, settings))
    built = [outcome.shard for outcome in outcomes if isinstance(outcome, Report)]
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, SetAside)]
    assert sorted([*built, KILLS]) == [f"{i:06d}" for i in range(SHARDS)]
    assert (failed.shard, failed.attempts) == (KILLS, 2)
    assert list(pool.left_out) == [bad.node_id]
    assert any(line.startswith("The node ") and "uncorrectable ECC error" in line for line in said)
    tries = Counter(path.name.split(".")[0] for path in tmp_path.iterdir())
    elsewhere = Counter(
        path.name.split(".")[0] for path in tmp_path.iterdir() if bad.node_id not in path.name
    )
    for shard, fault in {
        KILLS: "a shard that kills its workers",
        KILLS_ONCE: "kill -9 of a worker",
        STOPS_ONCE: "a stopped worker",
        HANGS_ONCE: "a worker that hangs",
    }.items():
        assert tries[shard] >= 2
        # Alone in its second attempt, which a neighbour of one of the others may have cost it.
        assert elsewhere[shard] <= 5
        survived(fault)
    survived("a node on which every shard fails")
