"""Full, forbidden and damaged disks, limits and clocks: one sentence, and a hint that makes it well again."""

import json
import multiprocessing
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here

from densecli.core.errors import DenseCLIError
from densecli.pipeline.limits import check_limits
from densecli.shards.joined import read_joined
from densecli.shards.store import Store

SHARD = "000001"
NOBODY = 65534


def said_in_a_child(build: Callable[[], None], prepare: Callable[[], None]) -> list[str]:
    """The sentence and the hint that `build` ends with in a process of its own, after `prepare`."""
    ours, theirs = multiprocessing.Pipe()

    def run() -> None:
        prepare()
        try:
            build()
        except DenseCLIError as error:
            theirs.send([str(error), error.hint])
        theirs.close()

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    theirs.close()
    child.join()
    return ours.recv()


def nothing_half_written(store: Path) -> bool:
    """No temporary is left, and at most one tar (of which the receipt could not be written) has none."""
    without_receipt = [tar for tar in store.rglob("*.tar") if not tar.with_suffix(".json").exists()]
    return not list(store.rglob("*.tmp")) and len(without_receipt) <= 1


def test_no_space__a_limit_on_file_size(tiny, undisturbed, contents, survived):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    sentence, hint = said_in_a_child(lambda: build_here(tiny), limit)
    assert re.fullmatch(r"Could not write .*/images/000000\.tar: File too large\.", sentence)
    assert "Free some space" in hint
    assert nothing_half_written(Path(tiny.store))
    build_here(tiny)
    assert contents(Path(tiny.store)) == contents(undisturbed)
    survived("no space: file size limit")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for less than a store."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    yield folder
    # A shard that was read stays mapped until its records are collected.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_no_space__a_full_disk(tiny, undisturbed, contents, survived, small_disk):
    config = replace(tiny, store=str(small_disk / "store"))
    with pytest.raises(DenseCLIError, match="No space left on device") as caught:
        build_here(config)
    assert "Free some space" in caught.value.hint
    assert nothing_half_written(small_disk / "store")
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    build_here(config)
    assert contents(small_disk / "store") == contents(undisturbed)
    survived("no space: full disk")


def test_read_only_folder(tiny, undisturbed, contents, survived):
    # pytest's own folders are closed to the user that root becomes, whom alone a mode can keep out.
    with tempfile.TemporaryDirectory() as folder:
        config = replace(tiny, store=f"{folder}/store")
        os.chmod(folder, 0o555)
        sentence, hint = said_in_a_child(
            lambda: build_here(config), lambda: None if os.getuid() else os.setuid(NOBODY)
        )
        assert re.fullmatch(r"Could not write .*/store\.json: Permission denied\.", sentence)
        assert "may write" in hint
        assert not os.listdir(folder)
        os.chmod(folder, 0o755)
        build_here(config)
        assert contents(Path(config.store)) == contents(undisturbed)
    survived("read-only folder")


def cut_in_the_middle(tar: Path) -> None:
    os.truncate(tar, tar.stat().st_size // 2 + 1)


def cut_between_members(tar: Path) -> None:
    members = sorted(json.loads(tar.with_suffix(".json").read_bytes())["members"].values())
    os.truncate(tar, members[0][0] + -(-members[0][1] // 512) * 512)


def flip_a_byte(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 0xFF
    tar.write_bytes(data)


def empty(tar: Path) -> None:
    os.truncate(tar, 0)


def lose_the_tar(tar: Path) -> None:
    tar.unlink()


def lose_the_receipt(tar: Path) -> None:
    tar.with_suffix(".json").unlink()


def empty_the_receipt(tar: Path) -> None:
    os.truncate(tar.with_suffix(".json"), 0)


@pytest.mark.parametrize("column", ["images", "targets/*"])
@pytest.mark.parametrize(
    "damage",
    [
        cut_in_the_middle,
        cut_between_members,
        flip_a_byte,
        empty,
        lose_the_tar,
        lose_the_receipt,
        empty_the_receipt,
    ],
)
def test_damage__is_refused_and_the_hint_makes_just_that_shard_again(
    tiny, finished, undisturbed, contents, shards, survived, damage, column
):
    before = shards(finished)
    (tar,) = finished.glob(f"{column}/{SHARD}.tar")
    damage(tar)
    store = Store.open(finished)
    columns = [store.images, *store.columns()]
    with pytest.raises(DenseCLIError) as caught:
        read_joined(columns, SHARD)
    message, hint = str(caught.value), caught.value.hint
    assert f"{tar.with_suffix('')}." in message and message.endswith(".") and "\n" not in message
    assert "redoes this shard only" in hint
    # Do as it says, and nothing else.
    if re.match("Delete (it|the receipt)", hint):
        tar.with_suffix(".json").unlink()
    build_here(tiny)
    assert contents(finished) == contents(undisturbed)
    name = str(tar.relative_to(finished))
    after = shards(finished)
    assert {n for n in after if after[n] != before[n]} <= {name}
    survived(f"damage: {damage.__name__.replace('_', ' ')}")


def test_stale_temporaries__are_passed_over(tiny, finished, undisturbed, contents, survived):
    before = contents(finished)
    for folder in (finished, *(path for path in finished.rglob("*") if path.is_dir())):
        for name in ("000001.tar", "000001.json", "column.json"):
            (folder / f".{name}.{'0' * 32}.tmp").write_bytes(b"half")
    build_here(tiny)
    store = Store.open(finished)
    assert len(store.columns()) == 2
    assert len(read_joined([store.images, *store.columns()], SHARD)) == 1
    assert contents(finished) == before == contents(undisturbed)
    survived("stale temporaries")


def test_changed_settings__make_another_column_and_never_a_mix(tiny, undisturbed, contents, shards, survived):
    # Stopped after the first shard, and gone on with another temperature.
    store = Path(tiny.store)
    rest = ("000001", "000002")
    for name in contents(undisturbed):
        if not Path(name).stem.startswith(rest):
            (store / name).parent.mkdir(parents=True, exist_ok=True)
            (store / name).write_bytes((undisturbed / name).read_bytes())
    before = shards(store)
    build_here(replace(tiny, tau=0.02))
    assert shards(store).items() >= before.items()
    old, new = sorted(Store.open(store).columns("targets"), key=lambda c: c.spec["target"]["tau"])
    assert (old.missing(), new.missing()) == (list(rest), [])
    assert {new.receipt(shard).column for shard in new.shard_names} == {new.key}
    build_here(tiny)
    assert contents(store).items() >= contents(undisturbed).items()
    survived("changed settings")


def test_processes__an_ordinary_users_limit(survived):
    def limit():
        resource.setrlimit(resource.RLIMIT_NPROC, (60, 60))
        if not os.getuid():
            os.setuid(NOBODY)

    sentence, hint = said_in_a_child(lambda: check_limits(1), limit)
    assert "more threads may be started here, and Ray needs about 200" in sentence and "ulimit -u" in hint
    survived("too few processes")


def test_clock__that_jumps_while_a_store_is_built(tiny, undisturbed, contents, survived, monkeypatch):
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(calls) * 1e8)
    build_here(tiny)
    assert contents(Path(tiny.store)) == contents(undisturbed)
    survived("a clock that jumps in a build")
