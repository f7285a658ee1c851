"""A tar is verified once a process, and again as soon as it may be another one."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards import joined, tars
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.joined import read_joined
from densecli.shards.reader import StoreReader
from densecli.shards.regions import GridPlan, Regions
from densecli.shards.store import Store
from densecli.shards.tars import Index, VerifiedTars, open_tar
from densecli.shards.writer import ShardWriter, json_bytes

SAMPLES = 3


@pytest.fixture(autouse=True)
def memory(monkeypatch) -> VerifiedTars:
    """What this process remembers: nothing yet."""
    memory = VerifiedTars(max_members=1000)
    monkeypatch.setattr(tars, "VERIFIED", memory)
    return memory


@pytest.fixture
def checksums(monkeypatch) -> list[int]:
    """The sizes of the tars whose checksum was computed."""
    sizes: list[int] = []
    real = tars.xxhash.xxh3_64_hexdigest
    monkeypatch.setattr(
        tars.xxhash, "xxh3_64_hexdigest", lambda data: (sizes.append(len(data)), real(data))[1]
    )
    return sizes


def write(column: Column, shard: str, fill: str = "x") -> None:
    writer = ShardWriter(column, shard)
    for i in range(SAMPLES):
        writer.add(f"{shard}-{i}", {"jpg": f"{fill}{i}".encode() * 300, "json": b"{}"})
    writer.commit()


def age(path: str | Path, seconds: float = 60) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def make(root: str) -> Store:
    store = Store.create(root, {"name": "x"}, 64, [SAMPLES] * 2)
    for column in (store.images, store.add_column("targets", "v", {})):
        for shard in store.shard_names:
            write(column, shard)
            if fs.is_local(column.tar_url(shard)):
                age(column.tar_url(shard))
    return store


@pytest.fixture
def store(tmp_path) -> Store:
    return make(str(tmp_path / "store"))


def epoch(reader: StoreReader, number: int) -> dict[str, dict]:
    return {
        record.key: {part: {name: bytes(data) for name, data in files.items()}
                     for part, files in record.parts.items()}
        for record in reader.iter(number)
    }  # fmt: skip


def test_reader__checks_each_tar_in_the_first_epoch_alone(store, checksums, monkeypatch):
    reader = StoreReader([store.images, *store.columns()])
    checksums.clear()
    first = epoch(reader, 0)
    assert len(first) == 2 * SAMPLES and len(checksums) >= 4
    checksums.clear()
    monkeypatch.setattr(Column, "receipt", lambda *_: pytest.fail("a receipt was read again"))
    assert epoch(reader, 1) == first
    assert not checksums


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)


def test_open_tar__one_that_has_changed_is_checked_again(store):
    open_tar(store.images, "000000")
    flip(Path(store.images.tar_url("000000")))
    with pytest.raises(DenseCLIError, match="has changed since it was written"):
        open_tar(store.images, "000000")


def test_open_tar__another_file_of_the_same_time_is_checked_again(store):
    path = Path(store.images.tar_url("000000"))
    open_tar(store.images, "000000")
    before = path.stat()
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    flip(copy)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.replace(path)
    with pytest.raises(DenseCLIError, match="has changed since it was written"):
        open_tar(store.images, "000000")


def test_open_tar__one_built_again_is_read_anew(store):
    open_tar(store.images, "000000")
    write(store.images, "000000", fill="y")
    records = read_joined([store.images], "000000")
    assert bytes(records[0].parts["images"]["jpg"]) == b"y0" * 300


def test_open_tar__one_that_is_gone_is_refused(store):
    open_tar(store.images, "000000")
    os.unlink(store.images.tar_url("000000"))
    with pytest.raises(DenseCLIError, match="is gone"):
        open_tar(store.images, "000000")


def test_open_tar__one_that_has_just_been_written_may_change_unseen(store, checksums):
    """Within the same tick of the clock a file may change and keep its time."""
    age(store.images.tar_url("000000"), seconds=-1)
    for _ in range(2):
        checksums.clear()
        open_tar(store.images, "000000")
        assert checksums


def test_open_tar__a_member_that_only_some_samples_have(store):
    writer = ShardWriter(store.images, "000000")
    writer.add("a", {"jpg": b"1", "json": b"22"})
    writer.add("b", {"json": b""})
    writer.add("c", {"npz": b"333", "jpg": b"4444"})
    writer.commit()
    found = [dict(record.parts["images"]) for record in read_joined([store.images], "000000")]
    assert found == [{"jpg": b"1", "json": b"22"}, {"json": b""}, {"jpg": b"4444", "npz": b"333"}]
    (_, second, _) = read_joined([store.images], "000000")
    assert "jpg" not in second.parts["images"] and len(second.parts["images"]) == 1
    with pytest.raises(KeyError):
        second.parts["images"]["jpg"]


def index(members: int) -> Index:
    return Index("", {"jpg": np.zeros((members, 2), np.int64)})


def test_memory__remembers_no_more_than_it_may():
    memory, stamp = VerifiedTars(max_members=5), fs.Stamp(1, 0, 1, 1)
    for name, members in {"a": 3, "b": 3, "c": 2, "d": 1}.items():
        memory.add(name, stamp, index(members))
    assert [name for name in "abcd" if memory.find(name, stamp)] == ["a", "c"]
    # A tar that was built again takes the place of the former.
    memory.add("a", stamp._replace(inode=2), index(2))
    memory.add("d", stamp, index(1))
    assert not memory.find("a", stamp)
    assert memory.find("a", stamp._replace(inode=2)) and memory.find("d", stamp)


def test_cache__a_kept_tar_is_checked_once(s3, tmp_path, checksums):
    store, cache = make(f"{s3}/store"), Cache(tmp_path / "cache", 10**9)
    reader = StoreReader([store.images], cache=cache)
    first = epoch(reader, 0)
    for path in cache.folder.glob("*.tar"):
        age(path)
    sizes = {path.stat().st_size for path in cache.folder.glob("*.tar")}
    assert epoch(reader, 1) == first
    checksums.clear()
    assert epoch(reader, 2) == first
    assert not sizes & set(checksums)
    flip(next(cache.folder.glob("*.tar")))
    assert epoch(reader, 3) == first
    assert len(sizes & set(checksums)) == 1


def test_boxes__of_a_tar_that_stays_are_found_once_and_of_a_new_one_again(tmp_path, monkeypatch):
    store = Store.create(tmp_path / "s", {"name": "x"}, 64, [1])
    regions = store.add_column("regions", "grid-square", {**GridPlan("square").spec, "stored": False})

    def photo(width: float) -> None:
        writer = ShardWriter(store.images, "000000")
        writer.add("k", {"json": json_bytes({"valid": [0, 0, width, 1]})})
        writer.commit()
        age(store.images.tar_url("000000"))

    def boxes() -> Regions:
        (record,) = read_joined([store.images, regions], "000000")
        return record.regions()

    photo(1.0)
    first = boxes()
    with monkeypatch.context() as no_reading:
        no_reading.setattr(joined.json, "loads", None)
        assert boxes() is first
    photo(0.5)
    assert (first.boxes[:, 2].max(), boxes().boxes[:, 2].max()) == (1.0, 0.5)
