import json
import shutil

import numpy as np
import pytest

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.key_share import KeyRange, share_of_key
from densecli.shards import reader
from densecli.shards.joined import read_joined
from densecli.shards.keys import keys_digest
from densecli.shards.reader import StoreReader
from densecli.shards.receipt_totals import publish
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Store
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter, json_bytes, npz_bytes

SIZES = (3, 1, 4, 2, 5)
SHARD = "000002"


def fill(column, keys=lambda shard, i: f"{shard}-{i}", shards=None):
    """Every sample says which column it is of; several members, one longer than a tar block."""
    for shard, size in zip(column.shard_names, SIZES, strict=True):
        writer = ShardWriter(column, shard)
        for i in range(size):
            text = json_bytes({"of": column.name, "i": i})
            writer.add(keys(shard, i), {"json": text, "npz": npz_bytes({"x": np.arange(200)})})
        if shards is None or shard in shards:
            writer.commit()
    return column


def make(root, canvas=64, name="x"):
    store = Store.create(root, {"name": name}, canvas, list(SIZES))
    columns = [
        store.images,
        store.add_column("regions", "grid-paper", {}),
        store.add_column("targets", "v", {}),
    ]
    return store, [fill(column) for column in columns]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    make(root)
    return root


@pytest.fixture
def store(pristine, tmp_path):
    """A fresh copy that a test may damage."""
    return Store.open(shutil.copytree(pristine, tmp_path / "store"))


@pytest.fixture
def column(store):
    return store.find("targets", "v")


def refused(call, *words):
    """The call is refused in one sentence with these words, and a hint says what to do."""
    with pytest.raises(DenseCLIError) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.endswith(".") and caught.value.hint.endswith(".")


def columns_of(store):
    return [store.images, *store.columns()]


def test_read_shard__the_samples_in_the_order_they_were_added(column):
    samples = read_shard(column, SHARD)
    assert [key for key, _ in samples] == [f"{SHARD}-{i}" for i in range(4)]
    assert [json.loads(parts["json"]) for _, parts in samples] == [{"of": "v", "i": i} for i in range(4)]
    assert {tuple(parts) for _, parts in samples} == {("json", "npz")}


def test_read_shard__an_empty_shard_is_a_shard(column):
    ShardWriter(column, SHARD).commit(skipped={"unreadable": 4})
    assert read_shard(column, SHARD) == []


# Each damage to a shard's tar, and the words its sentence must have.
@pytest.mark.parametrize("at", [0, 600, 5000, -1])
def test_damage__a_flipped_bit(column, at):
    data = bytearray(fs.read_bytes(column.tar_url(SHARD)))
    data[at] ^= 1
    fs.write_atomic(column.tar_url(SHARD), bytes(data))
    refused(lambda: read_shard(column, SHARD), SHARD, "changed", "checksum")


def test_damage__cut_in_the_middle(column):
    data = fs.read_bytes(column.tar_url(SHARD))
    fs.write_atomic(column.tar_url(SHARD), data[: len(data) // 2 + 1])
    refused(lambda: read_shard(column, SHARD), SHARD, "cut", f"{len(data) // 2 + 1} of {len(data)} bytes")


@pytest.mark.parametrize("whole", range(1, 9))
def test_damage__cut_at_a_member_boundary(column, whole):
    # A tar cut so reads short in silence: plain readers take its end for the end of the shard.
    offset, size = sorted(column.receipt(SHARD).members.values())[whole - 1]
    data = fs.read_bytes(column.tar_url(SHARD))
    fs.write_atomic(column.tar_url(SHARD), data[: offset + -(-size // 512) * 512])
    refused(lambda: read_shard(column, SHARD), SHARD, "between two members", f"{whole} of 8")


def test_damage__zero_bytes(column):
    fs.write_atomic(column.tar_url(SHARD), b"")
    refused(lambda: read_shard(column, SHARD), SHARD, "is empty")


def test_damage__something_appended(column):
    fs.write_atomic(column.tar_url(SHARD), fs.read_bytes(column.tar_url(SHARD)) + b"x")
    refused(lambda: read_shard(column, SHARD), SHARD, "longer")


def test_damage__receipt_without_tar(column):
    fs.remove(column.tar_url(SHARD))
    refused(lambda: read_shard(column, SHARD), SHARD, "gone", "receipt is there")


def test_damage__tar_without_receipt(column):
    fs.remove(column.receipt_url(SHARD))
    refused(lambda: read_shard(column, SHARD), SHARD, "no receipt", "interrupted")


def test_damage__neither_tar_nor_receipt(column):
    fs.remove(column.receipt_url(SHARD))
    fs.remove(column.tar_url(SHARD))
    refused(lambda: read_shard(column, SHARD), SHARD, "not been built")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"run":{},"members":{"a":1}}']
)
def test_damage__a_broken_receipt(column, content):
    fs.write_atomic(column.receipt_url(SHARD), content)
    refused(lambda: read_shard(column, SHARD), f"{SHARD}.json", "damaged")


@pytest.mark.parametrize("source", ["shard", "column"])
def test_damage__a_tar_and_receipt_from_elsewhere(store, column, source):
    other, shard = (column, "000000") if source == "shard" else (store.images, SHARD)
    fs.write_atomic(column.tar_url(SHARD), fs.read_bytes(other.tar_url(shard)))
    fs.write_atomic(column.receipt_url(SHARD), fs.read_bytes(other.receipt_url(shard)))
    refused(lambda: read_shard(column, SHARD), f"belongs to shard {shard} of column {other.id}")


@pytest.mark.parametrize("change", [{"samples": 1}, {"keys_digest": "0"}])
def test_damage__a_receipt_that_contradicts_itself(column, change):
    document = {**json.loads(fs.read_bytes(column.receipt_url(SHARD))), **change}
    fs.write_atomic(column.receipt_url(SHARD), json_bytes(document))
    refused(lambda: read_shard(column, SHARD), "damaged", "its own checksum is another")
    del document["digest"]  # as an earlier version wrote them
    fs.write_atomic(column.receipt_url(SHARD), json_bytes(document))
    refused(lambda: read_shard(column, SHARD), "other samples than it counts")


def test_read_joined__every_column_under_its_name(store):
    records = read_joined(columns_of(store), SHARD)
    assert [record.key for record in records] == [f"{SHARD}-{i}" for i in range(4)]
    for i, record in enumerate(records):
        found = {part: json.loads(bytes(members["json"])) for part, members in record.parts.items()}
        assert found == {
            "images": {"of": "images", "i": i},
            "regions": {"of": "grid-paper", "i": i},
            "v": {"of": "v", "i": i},
        }


@pytest.mark.parametrize("keys", [lambda s, i: f"{s}-{9 - i}", lambda s, i: f"{s}-{3 - i}"])
def test_read_joined__other_keys_or_another_order_are_refused(store, column, keys):
    fill(column, keys, shards=[SHARD])
    assert column.receipt(SHARD).keys_digest != keys_digest([f"{SHARD}-{i}" for i in range(4)])
    refused(lambda: read_joined(columns_of(store), SHARD), SHARD, "other samples than")


def test_reader__an_unfinished_column_is_refused_before_the_first_sample(store, column):
    fs.remove(column.receipt_url(SHARD))
    refused(lambda: StoreReader(columns_of(store)), "not finished", "1 of 5", SHARD)


@pytest.mark.parametrize(("canvas", "name", "word"), [(96, "x", "canvas 64"), (64, "y", "different stores")])
def test_reader__columns_of_two_stores_are_refused(store, tmp_path, canvas, name, word):
    _, columns = make(tmp_path / "other", canvas, name)
    refused(lambda: StoreReader([store.images, columns[2]]), word)


def test_reader__two_columns_of_one_name_are_refused(store):
    twin = fill(store.add_column("targets", "v", {"k": 8}))
    refused(lambda: StoreReader([store.images, store.columns("targets")[0], twin]), "called v")


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("window", [1, 2, 9])
def test_iter__every_start_is_the_tail_of_the_epoch(pristine, shuffle, window):
    store = Store.open(pristine)
    stream = StoreReader(columns_of(store), seed=7, shuffle=shuffle, window=window)
    for epoch in (0, 1):
        whole = [record.key for record in stream.iter(epoch)]
        assert sorted(whole) == sorted(
            f"{s}-{i}" for s, n in zip(store.shard_names, SIZES, strict=True) for i in range(n)
        )
        assert len(whole) == len(stream) == sum(SIZES)
        for start in range(len(whole) + 2):
            assert [record.key for record in stream.iter(epoch, start)] == whole[start:]


def test_iter__a_pure_function_of_seed_and_epoch(pristine):
    columns = columns_of(Store.open(pristine))

    def keys(seed, epoch):
        return [record.key for record in StoreReader(columns, seed=seed).iter(epoch)]

    assert keys(0, 3) == keys(0, 3)
    assert len({tuple(keys(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_iter__without_shuffle_is_the_order_of_the_store(pristine):
    columns = columns_of(Store.open(pristine))
    keys = [record.key for record in StoreReader(columns, shuffle=False).iter(5)]
    assert keys == sorted(keys)


def test_iter__reads_no_shard_that_lies_before_the_start(pristine, monkeypatch):
    stream = StoreReader(columns_of(Store.open(pristine)), seed=1, window=1)
    keys = [record.key for record in stream.iter(0)]
    read = []
    real = reader.open_tar
    monkeypatch.setattr(reader, "open_tar", lambda *what: (read.append(what[1]), real(*what))[1])
    for start in range(len(keys)):
        read.clear()
        assert [record.key for record in stream.iter(0, start)] == keys[start:]
        assert sorted(read) == sorted(3 * list({key.split("-")[0] for key in keys[start:]}))


@pytest.mark.parametrize("shuffle", [True, False])
def test_iter__reads_only_keys_within_the_ranges(store, shuffle):
    ranges = (KeyRange("a", 0.0, 0.7), KeyRange("b", 0.3))
    columns = columns_of(store)
    everything = {record.key: record for record in StoreReader(columns).iter(0)}
    expected = {key for key in everything if share_of_key(key, "a") < 0.7 and share_of_key(key, "b") >= 0.3}
    assert 0 < len(expected) < sum(SIZES)
    counted = ShardTable.of(columns, ranges)
    publish(store.images)
    for table in (counted, ShardTable.of(columns, ranges)):  # by the receipts, and by the index of the keys
        stream = StoreReader(columns, seed=2, shuffle=shuffle, lanes=2, window=2, table=table)
        for epoch in (0, 1):
            found = list(stream.iter(epoch))
            assert sorted(record.key for record in found) == sorted(expected) and len(stream) == len(found)
            assert all(record == everything[record.key] for record in found)
    assert (counted.kept.tolist(), counted.kept.sum()) == (table.kept.tolist(), len(expected))
    assert counted.samples.sum() == sum(SIZES)


def test_iter__of_a_range_that_holds_no_key_is_empty(store):
    columns = columns_of(store)
    stream = StoreReader(columns, table=ShardTable.of(columns, [KeyRange("a", 0.0, 1e-9)]))
    assert len(stream) == 0 and list(stream.iter(0)) == []
