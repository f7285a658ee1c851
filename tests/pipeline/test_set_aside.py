"""Shards that keep failing: all others are built, and the next run tries those alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import passed, refused
from tars import jpg, write_tar
from workers import ThreadLauncher

from densecli.core.errors import DenseCLIError
from densecli.pipeline import build_parts as parts
from densecli.pipeline import build_shards as shards
from densecli.pipeline import worker_pool
from densecli.pipeline.build_parts import build_parts
from densecli.pipeline.cluster import Connect
from densecli.pipeline.summary import ShardsSetAside
from densecli.pipeline.worker_pool import WorkerPool
from densecli.shards.parted_store import open_store
from densecli.shards.store import Store


class World:
    """Builds in threads. `broken`: shards that fail, as STORE/SHARD; `tried`: all that were tried."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.tried: list[str] = []

    def pool(self, work, *how) -> WorkerPool:
        def build(worker, unit) -> None:
            name = f"{Path(work.store.root).name}/{unit.shard}"
            self.tried.append(name)
            if name in self.broken:
                raise DenseCLIError("The teacher returned NaN.", hint="Check its weights.")
            work.builder().build(unit)

        return WorkerPool(work, *how, launcher=ThreadLauncher("a", build))


@contextmanager
def _without_ray() -> Iterator[Connect]:
    yield lambda *_: nullcontext()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(shards, "WorkerPool", found.pool)
    monkeypatch.setattr(shards, "connected", lambda *_: nullcontext())
    monkeypatch.setattr(parts, "connected_once", _without_ray)
    monkeypatch.setattr(worker_pool, "STOP_TIMEOUT", 0.2)
    return found


def test_build_shards__exits_with_the_list_and_the_next_run_tries_those_alone(world, tmp_path):
    words = (
        "build-shards", "--dataset", "scenes", "--split", "val", "--limit", 5, "--shard-size", 1,
        "--device", "cpu", "--store", tmp_path / "store",
    )  # fmt: skip
    world.broken = {"store/000001", "store/000003"}
    told = refused(*words, code=1)
    assert "2 shards could not be built. 000001: " in told and "; 000003: " in told
    assert "tries these alone" in told and "The teacher returned NaN" in told
    assert sorted(set(world.tried)) == [f"store/00000{i}" for i in range(5)]
    assert Store.open(tmp_path / "store").images.missing() == ["000001", "000003"]
    world.tried.clear()
    world.broken = {"store/000003"}
    assert "1 shard could not be built. 000003: " in refused(*words, code=1)
    assert sorted(world.tried) == ["store/000001", "store/000003"]
    world.tried.clear()
    world.broken.clear()
    passed(*words)
    assert world.tried == ["store/000003"]
    assert len([*Store.open(tmp_path / "store").samples()]) == 5


@pytest.fixture
def parted(tiny, tmp_path):
    for number in range(3):
        members = {f"{i}.jpg": jpg(90, 60, seed=10 * number + i) for i in range(2)}
        write_tar(tmp_path / "photos" / f"{number:03d}.tar", members)
    here = replace(tiny, dataset="webdataset", data=str(tmp_path / "photos"), split=None, limit=None)
    return replace(here, canvas=48, shard_size=1, teachers=(), weights={}, tars_per_part=1)


def test_build_parts__goes_on_with_the_other_parts(world, parted):
    world.broken = {"000000/000001", "000002/000000"}
    with pytest.raises(ShardsSetAside, match=r"2 shards .* 0/000001: .*; 2/000000: ") as caught:
        build_parts(parted)
    assert "tries these alone" in caught.value.hint
    assert len(set(world.tried)) == 6
    world.tried.clear()
    world.broken.clear()
    assert build_parts(parted)["samples"] == 2
    assert world.tried == ["000000/000001", "000002/000000"]
    assert len([*open_store(parted.store).samples()]) == 6


def test_build_parts__too_many_in_all_parts_end_it(world, parted):
    world.broken = {f"{part:06d}/{shard:06d}" for part in range(3) for shard in range(2)}
    with pytest.raises(ShardsSetAside, match="could not be built") as caught:
        build_parts(replace(parted, max_failed_shards=2))
    assert "because more than 2 failed" in caught.value.hint
    assert not [name for name in world.tried if name.startswith("000002")]
