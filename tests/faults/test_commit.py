"""kill -9 at every point of every commit: the same command then ends with an undisturbed build's store."""

import importlib.util
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here
from command_line import run
from tars import jpg, write_tar

from densecli.pipeline.build_shards import build_shards

INJECT = Path(__file__).parent / "inject"
POINTS = ("open", "write", "fsync", "rename", "renamed", "synced")
FILES = (
    "store.json",
    "targets/*/column.json",
    "images/000001.tar",
    "images/000001.json",
    "regions/*/column.json",
    "regions/*/000001.tar",
    "regions/*/000001.json",
    "targets/*/000001.tar",
    "targets/*/000001.json",
)


@pytest.fixture(scope="module")
def inject():
    spec = importlib.util.spec_from_file_location("inject", INJECT / "sitecustomize.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.POINTS == POINTS
    return module


def die_building(config, inject, point, pattern, marker):
    def die():
        inject.arm(point, pattern, str(marker))
        build_here(config)

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert marker.exists()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("point", POINTS)
def test_kill__at_every_point_of_a_commit(
    tiny, undisturbed, contents, shards, survived, inject, tmp_path, point, file
):
    die_building(tiny, inject, point, f"*/{file}", tmp_path / "died")
    store = Path(tiny.store)
    finished = shards(store)
    assert bool(list(store.glob(file))) == (point in ("renamed", "synced"))
    assert len(list(store.rglob("*.tar"))) - len(finished) <= 1
    build_here(tiny)
    assert contents(store) == contents(undisturbed)
    assert shards(store).items() >= finished.items()
    survived(f"kill -9 of a writer: {point}")


@pytest.mark.parametrize("point", POINTS)
def test_kill__while_the_listing_is_kept(tiny, contents, survived, inject, tmp_path, point):
    write_tar(tmp_path / "photos" / "0.tar", {f"{i}.jpg": jpg(seed=i) for i in range(3)})
    config = replace(
        tiny, dataset="webdataset", data=str(tmp_path / "photos"), split=None, limit=None, canvas=48,
        teachers=(), weights={},
    )  # fmt: skip
    undisturbed = tmp_path / "undisturbed"
    build_here(replace(config, store=str(undisturbed)))
    die_building(config, inject, point, "*/index/*.npz", tmp_path / "died")
    build_here(config)
    assert contents(Path(config.store)) == contents(undisturbed)
    survived(f"kill -9 of a writer: {point}")


@pytest.mark.ray
def test_kill__of_a_ray_worker_costs_one_shard_and_no_second_command(
    tiny, undisturbed, contents, survived, tmp_path, monkeypatch
):
    marker = tmp_path / "died"
    monkeypatch.setenv("PYTHONPATH", str(INJECT), prepend=os.pathsep)
    monkeypatch.setenv("DENSECLI_FAULT", f"rename,*/targets/*/000001.tar,{marker}")
    assert build_shards(replace(tiny, workers=2))["status"] == "built"
    assert marker.exists()
    assert contents(Path(tiny.store)) == contents(undisturbed)
    survived("kill -9 of a Ray worker")


@pytest.mark.ray
@pytest.mark.slow
def test_kill__of_every_worker_as_for_want_of_memory_says_what_helps(
    tiny, undisturbed, contents, survived, monkeypatch
):
    """The kernel kills a process that takes too much memory with -9, and tells nobody but its log."""
    monkeypatch.setenv("PYTHONPATH", str(INJECT), prepend=os.pathsep)
    monkeypatch.setenv("DENSECLI_FAULT", "rename,*/targets/*/000001.tar,")
    words = ["--dataset", "scenes", "--split", "val", "--limit", 3, "--shard-size", 1, "--device", "cpu"]
    words += ["--teacher", "scenes-s", "--weights", "scenes-s=random:0", "--workers", 1, "--store-boxes"]
    done = run("build-shards", *words, "--max-attempts", 2, "--store", tiny.store)
    assert done.exit_code == 1 and "Traceback" not in done.output, done.output
    assert "If dmesg says that memory ran out, lower --workers or --batch-size." in done.output
    build_here(tiny)
    assert contents(Path(tiny.store)) == contents(undisturbed)
    survived("kill -9 of every worker, as for want of memory")
