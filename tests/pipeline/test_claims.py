"""Claims: builds of one store that share its shards, on a disk and in an object store."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from densecli.core import fs
from densecli.pipeline import claims as module
from densecli.pipeline.claims import EXPIRY_SECONDS, SUFFIX, Claims, shared

COLUMNS = ["images", "labels"]


class World:
    """A store of shards that several builds make, one step of one of them after another."""

    def __init__(self, root: str, shards: int) -> None:
        self.root, self.shards = root, shards
        self.now = 0.0
        self.built: list[int] = []
        self.missing = set(range(shards))

    def clock(self) -> float:
        return self.now

    def claims(self, columns: list[str] = COLUMNS) -> Claims:
        return Claims(self.root, columns, self.shards, clock=self.clock)

    def shards_of(self, claims: Claims, slots: int = 4, todo: set[int] | None = None) -> Iterator[int | None]:
        return shared(
            claims, sorted(todo or self.missing), lambda: self.missing, slots=slots, clock=self.clock
        )

    def build(self, shard: int | None, seconds: float = 1.0) -> None:
        self.now += seconds
        if shard is not None:
            self.built.append(shard)
            self.missing.discard(shard)


@pytest.fixture(params=["disk", "s3"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    root = request.getfixturevalue("s3") + "/store" if request.param == "s3" else str(tmp_path / "store")
    return World(root, shards=60)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every build is on another machine, where nobody can see whether its process is alive."""
    monkeypatch.setattr(module, "_this_process", lambda: "")


def test_claims__two_builds_share_the_work_and_both_wait_for_the_last_shard(world):
    builds = [world.claims(), world.claims()]
    todo = set(world.missing)
    running = [(claims, world.shards_of(claims, todo=todo)) for claims in builds]
    while running:
        claims, shards = running[random.randrange(len(running))]
        try:
            world.build(next(shards), seconds=random.random())
        except StopIteration:
            claims.close()
            running.remove((claims, shards))
            assert not world.missing or running
    assert not world.missing
    # The last shards that one of them has taken may not be finished when the other looks.
    assert len(world.built) <= 1.1 * world.shards
    assert not [name for name in fs.files(world.root) if name.endswith(SUFFIX)]


def test_claims__builds_that_take_the_same_shards_at_the_same_time_never_both_get_them(tmp_path):
    wanted = np.arange(10)
    for first in ("write", "read"):
        world = World(str(tmp_path / first), 60)
        a, b = world.claims(), world.claims()
        # Between a's writing and a's reading, b takes the same; or just before a writes.
        between = a._read if first == "write" else a._write
        got: list[np.ndarray] = []

        def interrupted(between=between, b=b, got=got):
            if not got:
                got.append(b.take(wanted))
            return between()

        setattr(a, between.__name__, interrupted)
        got.append(a.take(wanted))
        assert not set(got[0]) & set(got[1])


def test_claims__what_a_dead_build_has_taken_is_free_after_a_minute_without_a_sign_of_life(world):
    dead, alive = world.claims(), world.claims()
    dead.take(np.arange(20))
    assert alive.of_others().sum() == 20
    for _ in range(int(EXPIRY_SECONDS // 10) - 1):
        world.now += 10
        assert alive.of_others().sum() == 20
    dead.beat()
    assert alive.of_others().sum() == 20
    for _ in range(int(EXPIRY_SECONDS // 10) - 1):
        world.now += 10
        assert alive.of_others().sum() == 20
    assert not alive.gone()
    world.now += 10
    assert alive.of_others().sum() == 0
    assert alive.gone() and not alive.gone()
    assert not [name for name in fs.files(world.root) if name.endswith(SUFFIX)]


def test_claims__a_build_that_was_suspended_itself_declares_nobody_dead(tmp_path):
    world = World(str(tmp_path), 60)
    other, suspended = world.claims(), world.claims()
    other.take(np.arange(20))
    assert suspended.of_others().sum() == 20
    world.now += 3600
    other.beat()
    assert suspended.of_others().sum() == 20


def test_claims__a_dead_process_of_this_machine_is_seen_at_once(tmp_path, monkeypatch):
    monkeypatch.undo()
    script = (
        "import numpy as np; from densecli.pipeline.claims import Claims; "
        f"Claims({str(tmp_path)!r}, {COLUMNS!r}, 60).take(np.arange(20)); print(flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    claims = Claims(str(tmp_path), COLUMNS, 60)
    assert claims.of_others().sum() == 20
    process.kill()
    process.communicate()
    assert claims.of_others().sum() == 0


def test_claims__builds_of_other_columns_are_not_in_the_way(tmp_path):
    world = World(str(tmp_path), 60)
    world.claims(["images", "gram"]).take(np.arange(20))
    world.claims(["images", "labels", "gram"]).take(np.arange(20, 30))
    claims = world.claims()
    # Only the second makes all that this one wants.
    assert np.flatnonzero(claims.of_others()).tolist() == list(range(20, 30))
    assert not claims.alone


def test_claims__what_another_build_set_aside_is_tried_when_that_has_ended(tmp_path):
    world = World(str(tmp_path), 4)
    other = world.claims()
    other.take(np.arange(3))
    shards = world.shards_of(world.claims())
    world.build(next(shards))
    assert next(shards) is None
    world.missing -= {0, 1}
    other.close()
    world.now += 100
    assert [shard for shard in (next(shards), next(shards, None)) if shard is not None] == [2]


def claim(**changes: object) -> bytes:
    return json.dumps(
        {"process": "", "name": "x", "beat": 1, "columns": COLUMNS, "taken": "", **changes}
    ).encode()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", claim(taken=7), claim(taken="!"), claim(taken="A" * 4000, beat="1")),
        *(claim(process="a b 9999999999999 1"), claim(columns={}, taken="////")),
    ],
)
def test_claims__a_damaged_file_claims_nothing(tmp_path, content):
    (tmp_path / f".x{SUFFIX}").write_bytes(content)
    claims = Claims(str(tmp_path), COLUMNS, 60)
    assert claims.of_others().sum() == 0
    assert len(claims.take(np.arange(60))) == 60


def test_claims__a_store_out_of_reach_for_a_moment_does_not_end_the_build(tmp_path, monkeypatch):
    world = World(str(tmp_path), 60)
    claims = world.claims()
    claims.take(np.arange(4))

    def unreachable(*_: object) -> None:
        raise module.Unreachable("The server does not answer.")

    monkeypatch.setattr(fs, "write_atomic", unreachable)
    world.now += 11
    claims.beat()


def test_shared__alone_takes_all_in_order_and_as_many_at_a_time_as_it_builds_in_ten_seconds(tmp_path):
    world = World(str(tmp_path), 5000)
    takes: list[int] = []
    claims = world.claims()
    take = claims.take
    claims.take = lambda shards: (takes.append(len(shards)), take(shards))[1]
    for shard in world.shards_of(claims):
        world.build(shard, seconds=0.1)
    assert world.built == list(range(5000))
    assert takes[:4] == [4, 8, 16, 32] and takes[10] == pytest.approx(100, abs=2)


def test_shared__what_a_build_made_and_ended_while_this_one_started_is_not_made_again(tmp_path):
    """Ray takes seconds to start, in which another build may do all the work and leave no claim."""
    listed, there = list(range(6)), set()
    first = Claims(str(tmp_path), ["images"], 6)
    there |= set(shared(first, listed, lambda: set(listed) - there, slots=2))
    first.close()
    second, made = Claims(str(tmp_path), ["images"], 6), list[int]()
    built = list(shared(second, listed, lambda: set(listed) - there, slots=2, made=made.extend))
    assert there == set(listed) and built == [] and made == listed
