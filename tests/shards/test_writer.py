import io
import tarfile

import numpy as np
import pytest
import webdataset as wds
import xxhash
from PIL import Image

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards import writer as shard_writer
from densecli.shards.joined import decode_image
from densecli.shards.keys import keys_digest
from densecli.shards.store import PHOTOS, Store
from densecli.shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes


@pytest.fixture
def column(tmp_path):
    return Store.create(tmp_path, {"name": "x"}, 64, [3]).add_column("targets", "v", {})


def jpg():
    return jpg_bytes(Image.fromarray(np.full((48, 64, 3), (200, 40, 90), np.uint8)))


SAMPLES = {
    "b": {
        "npz": npz_bytes({"boxes": np.eye(4, dtype=np.float32), "n": np.array(3)}),
        "json": json_bytes({"w": 64}),
    },
    "a": {"jpg": jpg(), "json": json_bytes({"é": [1, None]})},
    "clé-1": {"json": b"{}", "npy": b""},
}


def write(column, samples=SAMPLES, **commit):
    writer = ShardWriter(column, "000000")
    for key, parts in samples.items():
        writer.add(key, parts)
    return writer.commit(**commit)


def test_commit__receipt_says_what_the_tar_holds(column):
    receipt = write(
        column, seconds={"teacher": 1.5}, gpu_seconds=2.0, skipped={"unreadable": 1}, error={"max_tv": 0.1}
    )
    data = fs.read_bytes(column.tar_url("000000"))
    assert receipt == column.receipt("000000")
    assert (receipt.shard, receipt.column, receipt.samples) == ("000000", column.key, 3)
    assert (receipt.bytes, receipt.keys_digest) == (len(data), keys_digest(["b", "a", "clé-1"]))
    assert (receipt.skipped, receipt.error) == ({"unreadable": 1}, {"max_tv": 0.1})
    assert (receipt.seconds["teacher"], receipt.gpu_seconds) == (1.5, 2.0)
    expected = {f"{key}.{ext}": part for key, parts in SAMPLES.items() for ext, part in parts.items()}
    assert {name: data[o : o + size] for name, (o, size) in receipt.members.items()} == expected


def test_commit__tar_is_plain_ustar_without_clock_or_owner(column):
    write(column)
    with tarfile.open(column.tar_url("000000"), "r:") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["b.json", "b.npz", "a.jpg", "a.json", "clé-1.json", "clé-1.npy"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members} == {
        (0, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }
    assert not any(m.pax_headers for m in members)


def test_commit__the_tar_is_what_tarfile_writes(column):
    big = {
        f"{'x' * 95}-{n}"[-95:]: {"jpg": bytes([n]) * size}
        for n, size in enumerate((0, 511, 512, 513, 20000))
    }
    for samples in ({}, SAMPLES, big):
        receipt = write(column, samples)
        expected = io.BytesIO()
        with tarfile.TarFile(
            fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8"
        ) as tar:
            for key, parts in samples.items():
                for extension, data in sorted(parts.items()):
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        data = fs.read_bytes(column.tar_url("000000"))
        assert data == expected.getvalue()
        assert receipt.xxh3 == xxhash.xxh3_64_hexdigest(data)


def test_commit__a_rebuild_is_byte_identical(column):
    first = write(column, seconds={"teacher": 1.0})
    tar = fs.read_bytes(column.tar_url("000000"))
    shuffled = {key: dict(reversed(parts.items())) for key, parts in SAMPLES.items()}
    second = write(column, shuffled, seconds={"teacher": 2.0}, gpu_seconds=3.0)
    assert fs.read_bytes(column.tar_url("000000")) == tar
    assert {**vars(first), "seconds": 0, "gpu_seconds": 0} == {**vars(second), "seconds": 0, "gpu_seconds": 0}


def test_commit__the_receipt_comes_last_and_nothing_comes_before(column, monkeypatch):
    written = []
    real = fs.write_atomic
    monkeypatch.setattr(fs, "write_atomic", lambda url, data: (written.append(url), real(url, data)))
    writer = ShardWriter(column, "000000")
    writer.add("a", {"json": b"{}"})
    assert fs.listdir(column.url) == ["column.json"]
    writer.commit()
    assert written == [column.tar_url("000000"), column.receipt_url("000000")]


def test_commit__the_receipt_knows_how_long_the_tar_took_to_publish(column, monkeypatch):
    clock = [100.0]
    real = fs.write_atomic

    def slow(url, data):
        clock[0] += 7
        real(url, data)

    monkeypatch.setattr(fs, "write_atomic", slow)
    monkeypatch.setattr(shard_writer.time, "perf_counter", lambda: clock[0])
    write(column, seconds={"teacher": 1.5})
    assert column.receipt("000000").seconds == {"teacher": 1.5, "write": 7.0}


def test_jpg__as_the_store_says():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    expected = io.BytesIO()
    image.save(expected, "JPEG", quality=PHOTOS["quality"])
    assert jpg_bytes(image) == expected.getvalue()
    assert PHOTOS["resample"] == "bicubic"


def test_webdataset__stock_decoders_read_every_member(column):
    samples = {**SAMPLES, "c": {"npy": npy(np.arange(6).reshape(2, 3))}}
    del samples["clé-1"]
    write(column, samples)
    read = list(wds.WebDataset(column.tar_url("000000"), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in read] == ["b", "a", "c"]
    np.testing.assert_array_equal(read[0]["npz"]["boxes"], np.eye(4))
    assert read[0]["npz"]["n"] == 3 and read[0]["json"] == {"w": 64}
    assert read[1]["json"] == {"é": [1, None]}
    np.testing.assert_array_equal(read[1]["jpg"], decode_image(SAMPLES["a"]["jpg"]))
    np.testing.assert_array_equal(read[2]["npy"], [[0, 1, 2], [3, 4, 5]])


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a b", "a\tb", "a\n", "\x00", "x" * 97])
def test_add__a_key_that_cannot_be_read_back_is_refused(column, key):
    with pytest.raises(DenseCLIError) as caught:
        ShardWriter(column, "000000").add(key, {"json": b""})
    assert caught.value.hint


def test_add__the_same_key_twice_is_refused(column):
    writer = ShardWriter(column, "000000")
    writer.add("a", {"json": b""})
    with pytest.raises(DenseCLIError, match="twice"):
        writer.add("a", {"json": b""})
