"""The manifest of a column: what its receipts say, in one request, and never anything else."""

import io
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards import key_index
from densecli.shards.find_shard import find_shard
from densecli.shards.gc import garbage
from densecli.shards.info import describe, report
from densecli.shards.manifest import Manifest, manifest_url, most_bytes, read_manifest, withdraw
from densecli.shards.reader import StoreReader
from densecli.shards.receipt_totals import describe_shards, publish
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter

SIZES = (3, 0, 4, 2)


def fill(column, sizes=SIZES, keys=lambda shard, i: f"{shard}-{i}"):
    """A column whose totals have every kind of entry."""
    for n, (shard, size) in enumerate(zip(column.shard_names, sizes, strict=True)):
        writer = ShardWriter(column, shard)
        for i in range(size):
            writer.add(keys(shard, i), {"jpg" if column.kind == "images" else "npz": b"x" * (700 * n)})
        writer.commit(
            seconds={"decode": 0.1 * n, "teacher": 0.3},
            gpu_seconds=0.7,
            skipped={"empty": 1} if n == 1 else {},
            error={"max_tv": 0.1 * n, "mean_tv": 0.01 * n},
        )
    return column


def make(root, sizes=SIZES):
    store = Store.create(root, {"name": "x"}, 64, list(sizes))
    columns = [store.images, store.add_column("targets", "v", {}), store.add_column("targets", "w", {})]
    for column in columns:
        fill(column, sizes)
        publish(column)
    return store, columns


@pytest.fixture
def store(tmp_path):
    return make(tmp_path / "store")[0]


@pytest.fixture
def column(store):
    return store.find("targets", "v")


@pytest.fixture
def reads(monkeypatch):
    """The files that are read, by their names."""
    names, real = [], fs._get_once
    monkeypatch.setattr(
        fs, "_get_once", lambda url, **part: (names.append(Path(url).name), real(url, **part))[1]
    )
    return names


def same(one, other):
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(Manifest)
        if field.name != "file_bytes"
    )


def refused(call, *words):
    with pytest.raises(DenseCLIError) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.endswith(".") and caught.value.hint.endswith(".")
    return caught.value


@st.composite
def manifests(draw):
    n = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = st.dictionaries(st.text(max_size=8), st.integers(0, 10**12), max_size=3)
    numbers = st.dictionaries(
        st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), max_size=3
    )
    return Manifest(
        shards=np.arange(n),
        samples=rng.integers(0, 2**31, n).astype(np.int32),
        tar_bytes=rng.integers(0, 2**50, n),
        xxh3=rng.integers(0, 2**64, n, np.uint64),
        keys_digest=rng.integers(0, 256, (n, 32), np.uint8),
        totals={
            "skipped": draw(counts),
            "error": draw(numbers),
            "run": {
                "receipt_bytes": draw(st.integers(0, 2**60)),
                "seconds": draw(numbers),
                "gpu_seconds": 0.5,
            },
        },
        keys_index=draw(st.none() | st.just("0123456789abcdef")),
    )


@given(manifests())
def test_from_parquet__gives_back_what_was_written_and_equal_ones_are_equal_files(written):
    data = written.to_parquet("key")
    assert same(Manifest.from_parquet(data, "key", len(written.shards)), written)
    assert data == replace(written).to_parquet("key")


def test_to_parquet__takes_47_bytes_a_shard():
    rng = np.random.default_rng(0)
    n = 5000
    data = Manifest(
        shards=np.arange(n),
        samples=np.where(rng.random(n) < 0.02, 255, 256).astype(np.int32),
        tar_bytes=rng.integers(1500, 2500, n) * 10240,
        xxh3=rng.integers(0, 2**64, n, np.uint64),
        keys_digest=rng.integers(0, 256, (n, 32), np.uint8),
        totals={
            "skipped": {},
            "error": {},
            "run": {"receipt_bytes": 1, "seconds": {}, "gpu_seconds": 0.0},
        },
    ).to_parquet("0" * 64)
    assert len(data) <= 47 * n


def test_publish__says_what_the_receipts_say(store, column):
    read = read_manifest(column)
    receipts = [column.receipt(shard) for shard in column.shard_names]
    assert read.samples.tolist() == [receipt.samples for receipt in receipts]
    assert read.tar_bytes.tolist() == [receipt.bytes for receipt in receipts]
    assert [f"{x:016x}" for x in read.xxh3.tolist()] == [receipt.xxh3 for receipt in receipts]
    assert [bytes(d).hex() for d in read.keys_digest] == [receipt.keys_digest for receipt in receipts]
    assert read.totals["skipped"] == {"empty": 1}
    # The worst shard, and the mean over samples.
    assert read.totals["error"]["max_tv"] == pytest.approx(0.3)
    assert read.totals["error"]["mean_tv"] == pytest.approx((0.02 * 4 + 0.03 * 2) / 9)
    on_disk = sum(Path(column.receipt_url(shard)).stat().st_size for shard in column.shard_names)
    assert read.totals["run"]["receipt_bytes"] == on_disk


def test_publish__the_same_store_gives_the_same_bytes(store):
    for each in (store.images, *store.columns()):
        before = {name: Path(each.url, name).read_bytes() for name in fs.listdir(each.url)}
        publish(each)
        assert before == {name: Path(each.url, name).read_bytes() for name in fs.listdir(each.url)}


def test_publish__not_for_an_unfinished_column(column):
    withdraw(column)
    Path(column.receipt_url("000002")).unlink()
    publish(column)
    assert read_manifest(column) is None


def test_describe__the_same_with_and_without_manifests(store):
    for_all = [store.images, *store.columns()]
    with_ = describe(store)
    assert all(each["manifest"] for each in with_["columns"])
    on_disk = sum(path.stat().st_size for path in Path(store.root).rglob("*") if path.is_file())
    assert with_["bytes"] == on_disk
    assert "Without a manifest" not in report(with_)
    for each in for_all:
        withdraw(each)
    Path(store.images.url, key_index.FILE).unlink()
    without = describe(store)
    assert "Without a manifest: images, v, w." in report(without)
    for one, other in zip(with_.pop("columns"), without.pop("columns"), strict=True):
        assert one.pop("manifest") and not other.pop("manifest")
        assert one.pop("bytes") > other.pop("bytes")
        assert one == other
    assert with_.pop("bytes") > without.pop("bytes") and with_ == without


def test_read_manifest__a_changed_byte_is_refused_or_changes_nothing(column):
    path = Path(manifest_url(column))
    sound, data = read_manifest(column), path.read_bytes()
    refusals = 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            # Some bytes of the format, such as the name of the program that wrote it, mean nothing.
            assert same(read_manifest(column), sound)
        except DenseCLIError as error:
            refusals += "is damaged" in str(error) and "receipts" in error.hint
    assert refusals > len(data) / 2


def test_read_manifest__cut_empty_and_foreign_files_are_refused(store, column):
    path = Path(manifest_url(column))
    data = path.read_bytes()
    for other in (b"", data[: len(data) // 2], b"PAR1", bytes(1000)):
        path.write_bytes(other)
        refused(lambda: read_manifest(column), "manifest", "is damaged")
    path.write_bytes(Path(manifest_url(store.find("targets", "w"))).read_bytes())
    refused(lambda: read_manifest(column), "another column")
    with pytest.raises(ValueError, match="4 shards, and the store 5"):
        Manifest.from_parquet(data, column.key, 5)


def test_read_manifest__a_large_file_is_not_read_to_its_end(column):
    path = Path(manifest_url(column))
    with open(path, "ab") as file:
        file.truncate(1 << 34)
    refused(lambda: read_manifest(column), "larger than any manifest")
    assert most_bytes(len(SIZES)) < 2 << 20


def test_read_manifest__what_could_grow_when_it_is_read_is_refused(column):
    table = parquet.read_table(manifest_url(column))
    metadata = parquet.read_metadata(manifest_url(column)).metadata
    many = pa.concat_tables([table.slice(0, 1)] * 100_000).combine_chunks()
    for what, word in ((table, "compressed"), (many, "shards")):
        buffer = io.BytesIO()
        kind = "zstd" if what is table else "none"
        with parquet.ParquetWriter(buffer, what.schema, compression=kind, store_schema=False) as writer:
            writer.write_table(what)
            writer.add_key_value_metadata({b"densecli": metadata[b"densecli"]})
        Path(manifest_url(column)).write_bytes(buffer.getvalue())
        refused(lambda: read_manifest(column), word)


def test_describe_shards__a_deleted_shard_is_counted_as_missing(column):
    Path(column.receipt_url("000002")).unlink()
    assert describe_shards(column).shards.tolist() == [0, 1, 3]


def test_reader__opens_a_store_without_a_receipt(store, reads):
    columns = [store.images, *store.columns("targets")]
    reads.clear()
    reader = StoreReader(columns)
    assert len(reader) == sum(SIZES)
    assert reads == ["manifest.parquet"] * len(columns)
    assert len(list(reader.iter(0))) == sum(SIZES)


def test_reader__the_same_order_with_and_without_a_manifest(store):
    columns = [store.images, *store.columns("targets")]
    with_ = [record.key for record in StoreReader(columns, seed=3, lanes=2).iter(1)]
    for each in columns:
        withdraw(each)
    assert [record.key for record in StoreReader(columns, seed=3, lanes=2).iter(1)] == with_


def test_reader__a_manifest_that_is_out_of_date_is_told(store):
    writer = ShardWriter(store.images, "000002")
    for i in range(3):
        writer.add(f"000002-{i}", {"jpg": b"x"})
    writer.commit()
    error = refused(
        lambda: list(StoreReader([store.images]).iter(0)), "000002.tar holds 3 samples, and 4 were counted"
    )
    assert f"{manifest_url(store.images)} is out of date: delete it" in error.hint


def test_reader__other_keys_are_refused_before_any_shard_is_read(store, column, reads):
    fill(column, keys=lambda shard, i: f"{shard}-{i + 1}" if shard == "000002" else f"{shard}-{i}")
    publish(column)
    reads.clear()
    refused(lambda: ShardTable.of([store.images, column]), "Shard 000002", "holds other samples")
    assert set(reads) == {"manifest.parquet"}


def test_find_shard__in_three_reads(store, reads):
    for shard, size in zip(store.shard_names, SIZES, strict=True):
        for i in range(size):
            reads.clear()
            assert find_shard(store, f"{shard}-{i}") == shard
            assert reads == ["manifest.parquet", "keys.npy", f"{shard}.json"]


def test_find_shard__of_many_keys_reads_a_small_part(tmp_path, monkeypatch):
    sizes = []
    real = fs.read_range

    def read_range(url, offset, size):
        data = real(url, offset, size)
        sizes.append(len(data))
        return data

    keys = [f"sa_{i}" for i in range(200_000)]
    hashes = [key_index.key_hashes(keys[i : i + 200], i // 200) for i in range(0, len(keys), 200)]
    index = key_index.KeyIndex.of(hashes)
    index.write(str(tmp_path))
    assert np.load(tmp_path / "keys.npy").shape == (200_000,)
    monkeypatch.setattr(fs, "read_range", read_range)
    words = {"samples": len(keys), "shards": 1000, "digest": index.digest}
    for i in range(0, len(keys), 997):
        assert i // 200 in key_index.shards_with(str(tmp_path), keys[i], **words)
    assert max(sizes) < 40_000
    assert key_index.shards_with(str(tmp_path), "sa_200000", **words) == []


def test_find_shard__an_unknown_key_names_some_that_are_there(store):
    error = refused(lambda: find_shard(store, "z"), "has no sample z")
    assert "000000-0, 000000-1, 000000-2" in error.hint
    withdraw(store.images)
    assert "000000-0" in refused(lambda: find_shard(store, "z"), "has no sample z").hint


def test_find_shard__without_a_manifest_the_receipts_are_read(store):
    withdraw(store.images)
    assert find_shard(store, "000003-1") == "000003"


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_find_shard__an_index_that_is_not_right_is_told(store, damage):
    path = Path(store.images.url, "keys.npy")
    data = path.read_bytes()
    path.unlink()
    if damage == "damaged":
        path.write_bytes(data[:128] + bytes(len(data) - 128))
    error = refused(lambda: find_shard(store, "000003-1"), "keys.npy", f"is {damage}")
    assert "manifest.parquet" in error.hint
    # What the hint says helps.
    Path(manifest_url(store.images)).unlink()
    publish(store.images)
    assert find_shard(store, "000003-1") == "000003"


def test_key_hashes__a_key_in_two_shards_is_found_in_the_first():
    index = key_index.KeyIndex.of([key_index.key_hashes(["a"], 7), key_index.key_hashes(["a", "b"], 2)])
    assert (np.frombuffer(index.data[128:], "<u8") & np.uint64(0xFFFFFF)).tolist()[:2] in ([2, 7], [2, 2])


@pytest.fixture
def requests(monkeypatch):
    """The requests that an S3 client sends, page by page."""
    from aiobotocore.client import AioBaseClient

    sent, real = [], AioBaseClient._make_api_call

    async def call(self, operation, arguments):
        sent.append(f"{operation} {arguments.get('Key', arguments.get('Prefix', ''))}")
        return await real(self, operation, arguments)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", call)
    return sent


def test_describe__three_requests_a_column_of_any_size(s3, requests):
    counts = {}
    for n in (3, 12):
        store, columns = make(f"{s3}/store-{n}", (2,) * n)
        requests.clear()
        described = describe(Store.open(store.root))
        assert described["columns"][0]["samples"] == 2 * n and described["complete"]
        of_a_column = [each for each in requests if f"{columns[1].full_name}/" in each]
        assert 1 <= len(of_a_column) <= 3, of_a_column
        counts[n] = len(requests)
    assert counts[3] == counts[12]


def test_open_and_find__as_many_requests_for_any_size(s3, requests, tmp_path):
    counts = {}
    for n in (3, 12):
        store, _ = make(f"{s3}/store-{n}", (2,) * n)
        requests.clear()
        StoreReader([store.images, *store.columns("targets")])
        opened = len(requests)
        assert find_shard(store, "000001-1") == "000001"
        found = len(requests) - opened
        assert found <= 3
        (tmp_path / "runs").mkdir(exist_ok=True)
        assert garbage(store, runs=str(tmp_path / "runs"), keep=["v"], min_age=0, leftovers=False)
        counts[n] = opened, len(requests)
    assert counts[3] == counts[12]
    # The column that may go is as large as it is.
    (item,) = garbage(store, runs=str(tmp_path / "runs"), keep=["v"], min_age=0)
    w = store.find("targets", "w")
    assert item.url == w.url and item.bytes == sum(file.bytes for file in fs.files(w.url).values())


def test_manifest__counts_what_its_receipts_count(store, column, monkeypatch):
    """A receipt that goes while it is counted is told."""
    withdraw(column)
    real = fs.read_bytes

    def gone(url):
        if url.endswith("000002.json"):
            raise FileNotFoundError(url)
        return real(url)

    monkeypatch.setattr(fs, "read_bytes", gone)
    refused(lambda: publish(column), "000002.json was removed a moment ago")
