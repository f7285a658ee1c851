"""The cache of a remote store: fetched once, bounded, never wrong."""

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.cache import MARK, Cache
from densecli.shards.reader import StoreReader
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter

SAMPLES = 2
A, B, C, D = (f"{letter * 12}-000000-{letter * 16}.tar" for letter in "abcd")


def commit(store: Store, shard: str, fill: bytes = b"x") -> None:
    writer = ShardWriter(store.images, shard)
    for i in range(SAMPLES):
        writer.add(f"{shard}-{i}", {"jpg": fill * 20_000})
    writer.commit()


@pytest.fixture
def store(s3: str) -> Store:
    store = Store.create(f"{s3}/store", {"name": "x"}, 64, [SAMPLES] * 3)
    for shard in store.shard_names:
        commit(store, shard)
    return store


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """The tars that were fetched from elsewhere."""
    urls: list[str] = []
    real = fs.read_bytes
    monkeypatch.setattr(fs, "read_bytes", lambda url: (urls.append(url), real(url))[1])
    return urls


def epoch(store: Store, cache: Cache | None, number: int = 0) -> list:
    return list(StoreReader([store.images], cache=cache).iter(number))


def tars(fetched: list[str]) -> list[str]:
    names = sorted(url[-10:] for url in fetched if url.endswith(".tar"))
    fetched.clear()
    return names


def test_cache__fetches_each_tar_once_and_gives_the_same_samples(store, fetched, tmp_path):
    cache = Cache(tmp_path / "cache", 10**9)
    plain = [epoch(store, None, number) for number in (0, 1)]
    fetched.clear()
    assert epoch(store, cache) == plain[0]
    assert tars(fetched) == [f"{shard}.tar" for shard in store.shard_names]
    # By another process too.
    assert epoch(store, Cache(tmp_path / "cache", 10**9), 1) == plain[1]
    assert tars(fetched) == []


def test_cache__processes_at_the_same_shard_fetch_it_once(store, monkeypatch, tmp_path):
    """Threads, each with a cache of its own, which know as little of each other as processes do."""
    fetched, real = [], fs.read_bytes

    def slowly(url: str) -> bytes:
        if url.endswith(".tar"):
            fetched.append(url)
            time.sleep(0.05)
        return real(url)

    monkeypatch.setattr(fs, "read_bytes", slowly)
    with ThreadPoolExecutor(4) as pool:
        epochs = list(pool.map(lambda _: epoch(store, Cache(tmp_path / "cache", 10**9)), range(4)))
    assert all(each == epochs[0] for each in epochs)
    assert len(fetched) == len(store.shard_names)
    assert not [name for name in os.listdir(tmp_path / "cache") if fs.is_temporary(name)]
    total = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar"))
    assert (tmp_path / "cache" / MARK).read_text() == str(total)


def test_alone__a_killed_process_keeps_nobody_out(tmp_path):
    code = (
        "import sys; from densecli.shards.cache import Cache\n"
        "with Cache(sys.argv[1], 1).alone(sys.argv[2]):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path), A]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"in\n"
        entered = threading.Event()

        def enter():
            with Cache(tmp_path, 1).alone(A):
                entered.set()

        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.3)
        holder.kill()
        waiting.join()
    assert entered.is_set()


def test_cache__that_cannot_be_written(store, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DenseCLIError, match="Could not write to the cache") as caught:
        epoch(store, Cache(tmp_path / "cache", 10**9))
    assert "--cache" in caught.value.hint


def test_cache__of_a_local_store_is_never_used(tmp_path):
    store = Store.create(tmp_path / "store", {"name": "x"}, 64, [SAMPLES])
    commit(store, "000000")
    assert len(epoch(store, Cache(tmp_path / "cache", 10**9))) == SAMPLES
    assert not (tmp_path / "cache").exists()


def test_cache__with_a_changed_byte_fetches_again(store, fetched, tmp_path):
    cache = Cache(tmp_path / "cache", 10**9)
    plain = epoch(store, cache)
    fetched.clear()
    victim = sorted(cache.folder.glob("*.tar"))[1]
    data = bytearray(victim.read_bytes())
    data[700] ^= 1
    victim.write_bytes(data)
    assert epoch(store, cache) == plain
    assert tars(fetched) == ["000001.tar"]
    assert epoch(store, cache) == plain
    assert tars(fetched) == []


def test_cache__of_a_shard_built_again_is_not_used(store, fetched, tmp_path):
    cache = Cache(tmp_path / "cache", 10**9)
    epoch(store, cache)
    commit(store, "000002", b"y")
    fetched.clear()
    assert epoch(store, cache) == epoch(store, None)
    assert tars(fetched).count("000002.tar") == 2


def kept(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if Cache.keeps(name))


def test_cache__removes_what_was_used_longest_ago_and_stays_within_its_bound(tmp_path):
    for age, name in ((20, A), (30, B)):
        Cache(tmp_path, 250).put(name, name[:1].encode() * 100)
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    cache = Cache(tmp_path, 250)
    held = Cache(tmp_path, 250).get(A)
    os.utime(tmp_path / A, (time.time() - 10,) * 2)
    cache.put(C, b"c" * 100)
    assert kept(tmp_path) == [A, C]
    assert cache.get(B) is None
    os.utime(tmp_path / C, (time.time() - 5,) * 2)
    Cache(tmp_path, 250).put(D, b"d" * 240)
    assert kept(tmp_path) == [D]
    assert held is not None and held.data[:] == b"a" * 100
    cache.put(B, b"e" * 251)
    assert kept(tmp_path) == [D]


def test_cache__keeps_what_was_used_since_its_process_began(tmp_path, monkeypatch):
    cache = Cache(tmp_path, 250)
    cache.put(A, b"a" * 100)
    cache.put(B, b"b" * 100)
    scans, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (scans.append(path), real(path))[1])
    for _ in range(3):
        cache.put(C, b"c" * 100)
    assert kept(tmp_path) == [A, B]
    # That there is no room is found out once.
    assert len(scans) == 1
    cache.put(D, b"d" * 50)
    assert kept(tmp_path) == [A, B, D]


def test_cache__removes_what_a_killed_writer_left_and_nothing_that_is_being_written(tmp_path):
    old, new = tmp_path / f".{A}.1.tmp", tmp_path / f".{B}.2.tmp"
    for path in (old, new):
        path.write_bytes(b"x" * 100)
    os.utime(old, (time.time() - 7200,) * 2)
    Cache(tmp_path, 150).put(C, b"c" * 100)
    assert sorted(path.name for path in tmp_path.glob("*.tmp")) == [new.name]
    assert kept(tmp_path) == [C]


def test_cache__looks_at_all_files_only_when_it_is_full(tmp_path, monkeypatch):
    scans, real = [], os.scandir
    cache = Cache(tmp_path, 100_000)
    monkeypatch.setattr(os, "scandir", lambda path: (scans.append(path), real(path))[1])
    for i in range(99):
        cache.put(f"{i:012x}-0-{i:016x}.tar", bytes(1000))
    assert len(scans) == 2
    for i in range(99, 200):
        # By other processes too: what they keep is counted together.
        Cache(tmp_path, 100_000).put(f"{i:012x}-0-{i:016x}.tar", bytes(1000))
        assert len(kept(tmp_path)) <= 100
    assert len(scans) <= 14


class Looks:
    """Directory listings that count the files that are asked for their size and times."""

    def __init__(self, path: str) -> None:
        self._entries = SCANDIR(path)

    def __enter__(self) -> "Looks":
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()

    def __iter__(self):
        return map(Look, self._entries)


class Look:
    count = 0

    def __init__(self, entry: os.DirEntry) -> None:
        self.name, self.path, self._entry = entry.name, entry.path, entry

    def stat(self, **how: bool) -> os.stat_result:
        Look.count += 1
        return self._entry.stat(**how)


SCANDIR = os.scandir


def test_put__asks_for_as_many_files_however_many_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "scandir", Looks)
    monkeypatch.setattr(fs, "write_atomic", lambda path, data: Path(path).write_bytes(data))
    looks = []
    for files in (60, 600):
        cache = Cache(tmp_path / str(files), 10 * files)
        for i in range(3 * files):
            if i == files:
                Look.count = 0
            cache.put(f"{i:012x}-0-{i:016x}.tar", bytes(10))
        assert 0.85 * files < len(kept(cache.folder)) <= files
        looks.append(Look.count / (2 * files))
    # A full cache makes room for a tenth of its files at once.
    assert max(looks) < 12 and looks[1] < 1.1 * looks[0]


PUT = """
import os, sys
from densecli.shards.cache import Cache
cache = Cache(sys.argv[1], 20_000)
for i in range(int(sys.argv[2]), 10**9):
    cache.put(f"{i:012x}-0-{i:016x}.tar", bytes(1000))
    print(i, flush=True)
"""


def test_put__processes_that_are_killed_leave_the_bound_as_it_is(tmp_path):
    """Each is killed somewhere in a put, with the others at work."""
    writers = 3
    for turn in range(2):
        started = []
        for writer in range(writers):
            words = [sys.executable, "-c", PUT, str(tmp_path), str(turn * 10**8 + writer * 10**7)]
            started.append(subprocess.Popen(words, stdout=subprocess.PIPE))
        for process in started:
            for _ in range(25):
                assert process.stdout.readline()
        for process in started:
            process.kill()
            process.communicate()
        # One that is being written when another makes room is not yet among the files.
        assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) <= 20_000 + writers * 1000
    last = Cache(tmp_path, 20_000)
    for i in range(25):
        last.put(f"{i:012x}-1-{i:016x}.tar", bytes(1000))
    total = sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    assert total <= 20_000 and int((tmp_path / MARK).read_text()) >= total


OTHERS = ["notes.txt", ".bashrc", "model.tar", "a-000000-b.tar", ".x.tmp"]


@pytest.mark.parametrize("name", OTHERS)
def test_cache__a_folder_with_files_of_others_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DenseCLIError, match=rf"is not a cache: it holds {re.escape(name)}\.") as caught:
        Cache(tmp_path, 10)
    assert "--cache" in caught.value.hint
    assert os.listdir(tmp_path) == [name]


def test_cache__files_that_come_into_its_folder_later_stay(tmp_path):
    cache = Cache(tmp_path, 150)
    cache.put(A, b"a" * 100)
    for name in OTHERS:
        (tmp_path / name).write_text("mine" * 100)
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / B).symlink_to(tmp_path / "notes.txt")
    os.utime(tmp_path / B, (0, 0), follow_symlinks=False)
    for name in (C, D):
        Cache(tmp_path, 150).put(name, b"c" * 100)
    assert kept(tmp_path) == [D]
    assert all((tmp_path / name).read_text() == "mine" * 100 for name in OTHERS)


def test_cache__one_of_an_earlier_version_is_taken_over(tmp_path):
    (tmp_path / A).write_bytes(b"a" * 100)
    cache = Cache(tmp_path, 150)
    assert not (tmp_path / MARK).exists()
    cache.put(B, b"b" * 100)
    assert kept(tmp_path) == [B]
    assert (tmp_path / MARK).read_text() == "100"


@pytest.mark.parametrize("name", ["../x.tar", "a.tar", "0123456789ab-../x-0123456789abcdef.tar", A + "x"])
def test_put__keeps_no_file_of_another_name(tmp_path, name):
    cache = Cache(tmp_path / "cache", 150)
    with pytest.raises(ValueError, match="not a name"):
        cache.put(name, b"x")
    assert not list(tmp_path.iterdir())


def test_cache__in_an_object_store_is_refused():
    with pytest.raises(DenseCLIError, match="local folder"):
        Cache("s3://bucket/cache", 1)
