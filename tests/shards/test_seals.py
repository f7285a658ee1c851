"""With a manifest, a tar is known by its checksum and read by its own headers: no receipt is read."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densecli.core.errors import DenseCLIError
from densecli.shards.cache import Cache
from densecli.shards.column import Column
from densecli.shards.reader import StoreReader
from densecli.shards.receipt_totals import publish
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Store
from densecli.shards.tars import index_of, index_of_headers, open_tar, read_shard, read_tar
from densecli.shards.writer import ShardWriter


def write(column: Column, shard: str, samples: dict[str, dict[str, bytes]]) -> None:
    writer = ShardWriter(column, shard)
    for key, parts in samples.items():
        writer.add(key, parts)
    writer.commit()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "store", {"name": "x"}, 64, [2, 2])
    column = store.add_column("targets", "t", {})
    for i, shard in enumerate(store.shard_names):
        keys = [f"k{i}{j}" for j in range(2)]
        write(store.images, shard, {key: {"jpg": b"x" * (600 + i), "json": b"{}"} for key in keys})
        write(column, shard, {key: {"npz": key.encode()} for key in keys})
    for each in (store.images, column):
        publish(each)
    return store


def read(store: Store, **how) -> list[tuple[str, bytes]]:
    reader = StoreReader([store.images, *store.columns()], shuffle=False, **how)
    return [(r.key, bytes(r.parts["t"]["npz"])) for r in reader.iter(0)]


EXPECTED = [(f"k{i}{j}", f"k{i}{j}".encode()) for i in range(2) for j in range(2)]


def test_reader__reads_no_receipt(store, monkeypatch):
    def forbidden(*_):
        raise AssertionError("a receipt was read")

    monkeypatch.setattr(Column, "receipt", forbidden)
    assert read(store) == EXPECTED


@pytest.mark.parametrize("lost", ["manifest.parquet", "targets"])
def test_reader__without_a_manifest_reads_the_receipts(store, lost):
    for path in Path(store.root).rglob("manifest.parquet"):
        if lost in str(path):
            path.unlink()
    assert read(store) == EXPECTED


def test_reader__a_tar_that_changed_is_refused_as_before(store):
    tar = Path(store.images.tar_url("000001"))
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DenseCLIError, match="its checksum is another"):
        read(store)
    tar.write_bytes(data[:1024])
    with pytest.raises(DenseCLIError, match="was cut"):
        read(store)


def test_reader__a_shard_that_was_built_again_is_read_by_its_receipt(store):
    (column,) = store.columns()
    table = ShardTable.of([store.images, column])
    write(column, "000001", {"k10": {"npz": b"new"}, "k11": {"npz": b"newer"}})
    assert [data for _, data in read(store, table=table)][2:] == [b"new", b"newer"]


def test_cache__keeps_what_the_seal_says(store, tmp_path, monkeypatch):
    monkeypatch.setattr("densecli.shards.tars.fs.is_local", lambda url: False)
    (column,) = store.columns()
    table = ShardTable.of([column])
    cache = Cache(tmp_path / "cache", 10**6)
    seals = [table.seal(column, i) for i in range(2)]
    first = [
        open_tar(column, shard, cache, seal) for shard, seal in zip(store.shard_names, seals, strict=True)
    ]
    names = {Cache.name(column.key, s, column.receipt(s).xxh3) for s in store.shard_names}
    assert {path.name for path in cache.folder.glob("*.tar")} == names
    for shard in store.shard_names:
        Path(column.tar_url(shard)).unlink()
    again = [
        open_tar(column, shard, cache, seal) for shard, seal in zip(store.shard_names, seals, strict=True)
    ]
    assert [bytes(tar.data) for tar in again] == [bytes(tar.data) for tar in first]


members = st.dictionaries(
    st.sampled_from(["a.npz", "jpg", "json", "npz"]), st.binary(max_size=1100), min_size=1, max_size=4
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(samples=st.dictionaries(st.text("ab01é-_", min_size=1, max_size=20), members, max_size=6))
def test_headers__say_what_the_receipt_says(tmp_path, samples):
    store = Store.create(tmp_path / "any", {"name": "x"}, 64, [1])
    write(store.images, "000000", samples)
    data, receipt = read_tar(store.images, "000000")
    one, other = index_of(store.images, "000000", receipt), index_of_headers(data)
    assert one.keys == other.keys and one.samples == [*samples]
    assert one.places.keys() == other.places.keys()
    assert all(np.array_equal(one.places[e], other.places[e]) for e in one.places)
    assert dict(read_shard(store.images, "000000")) == samples


def tar_of(*members: tarfile.TarInfo, form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.type = size, kind
    return found


@pytest.mark.parametrize(
    "data",
    [
        tar_of(info("a.jpg", 3))[:1000],
        tar_of(info("a.jpg", 3))[:1536],
        tar_of(info("a.jpg", 30000))[: 20 * 512],
        tar_of(info("folder", kind=tarfile.DIRTYPE)),
        tar_of(info("x" * 90 + "/" + "y" * 90 + ".jpg", 3)),
        tar_of(info("x" * 300 + ".jpg", 3), form=tarfile.PAX_FORMAT),
        tar_of(info("a.jpg", 3))[:124] + b"-0000000001" + tar_of(info("a.jpg", 3))[135:],
        b"\1" * 10240,
    ],
)
def test_headers__of_a_tar_that_no_writer_writes(data):
    with pytest.raises(ValueError, match=r"."):
        index_of_headers(data)


def test_headers__of_nothing_and_of_equal_keys():
    assert index_of_headers(bytes(10240)).samples == []
    with pytest.raises(ValueError, match="twice"):
        index_of_headers(tar_of(info("a.jpg", 3), info("a.jpg", 4)))
