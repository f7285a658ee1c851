"""WebDatasets, and lists of addresses."""

import io
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from tars import jpg, write_tar

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources import Source, Unreadable, open_source
from densecli.shards.geometry import Canvas

CANVAS = Canvas(48)


def pixels(source: Source, i: int) -> np.ndarray:
    return np.asarray(source.load(source.items[i], CANVAS).image)


def webdataset(folder: Path) -> Path:
    """Two tars with the same sample names; one of the samples is a PNG with a mask and a caption."""
    write_tar(
        folder / "a" / "000.tar",
        {"1.txt": b"-", "1.jpg": jpg(seed=1), "2.seg.png": jpg(), "2.PNG": jpg(kind="PNG")},
    )
    write_tar(
        folder / "a" / "001.tar", {"1.jpg": jpg(seed=3), "dir/1.jpg": jpg(seed=4), "__meta__.json": b"{}"}
    )
    return folder


def test_webdataset__keys_name_the_tar_and_the_sample(tmp_path):
    source = open_source("webdataset", str(webdataset(tmp_path)))
    assert [item.key for item in source.items] == ["a_000+1", "a_000+2", "a_001+1", "a_001+dir_1"]
    assert source.items[1].ref == "a/000.tar/2.PNG"
    assert np.array_equal(pixels(source, 2), np.asarray(Image.open(io.BytesIO(jpg(seed=3))).convert("RGB")))


def test_webdataset__long_names_and_names_alike_keep_unique_keys(tmp_path):
    names = ["x" * 90, "x" * 89 + "y", "a b", "a_b"]
    write_tar(tmp_path / ("long-" * 20) / "0.tar", {f"{name}.jpg": b"-" for name in names})
    keys = [item.key for item in open_source("webdataset", str(tmp_path)).items]
    assert len(set(keys)) == 4
    assert max(map(len, keys)) <= 80


@pytest.mark.parametrize(
    ("data", "n"),
    [("", 4), ("/a", 4), ("/a/001.tar", 2), ("/a/{000..001}.tar", 4), ("/*/00[0].tar", 2), ("/a/00?.tar", 4)],
)
def test_webdataset__a_folder_a_tar_or_a_pattern(tmp_path, data, n):
    webdataset(tmp_path)
    assert len(open_source("webdataset", f"{tmp_path}{data}").items) == n


def test_webdataset__a_split_is_a_folder(tmp_path):
    assert len(open_source("webdataset", str(webdataset(tmp_path)), "a", limit=3).items) == 3
    with pytest.raises(DenseCLIError, match=r"no \.tar at"):
        open_source("webdataset", str(tmp_path), "b")


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    """The WebDataset in fsspec's store in memory."""
    memory = fsspec.filesystem("memory")
    memory.put(str(webdataset(tmp_path / "wds")), "/bucket", recursive=True)
    yield "memory://bucket"
    memory.rm("/bucket", recursive=True)


def test_webdataset__in_an_object_store_is_the_same_data(bucket, tmp_path):
    there, here = (open_source("webdataset", at) for at in (bucket, str(tmp_path / "wds")))
    assert there.identity == here.identity
    assert [there.items[:], len(there.items)] == [here.items[:], 4]
    assert np.array_equal(pixels(there, 3), pixels(here, 3))


def addresses(path: Path, urls: list[str]) -> Path:
    match path.suffix:
        case ".parquet":
            parquet.write_table(pa.table({"url": urls, "caption": ["-"] * len(urls)}), path)
        case ".csv":
            path.write_text("\n".join(["caption,url", *(f'"a, b",{url}' for url in urls)]))
        case _:
            path.write_text("\n".join([*urls, ""]))
    return path


@pytest.mark.parametrize("name", ["list.parquet", "list.csv", "list.txt"])
def test_urls__of_every_kind_of_list_are_the_same_data(tmp_path, name):
    urls = ["s3://b/x.jpg", "s3://b/y, z.jpg"[: None if name != "list.csv" else 8], "s3://b/x.jpg"]
    source = open_source("urls", str(addresses(tmp_path / name, urls)))
    assert [item.ref for item in source.items] == urls[:2]
    assert source.items[1:] == [source.items[1]]
    assert len({item.key for item in source.items}) == 2


def test_urls__a_longer_list_keeps_the_keys(tmp_path):
    few = open_source("urls", str(addresses(tmp_path / "few.txt", ["s3://b/1.jpg"])))
    many = open_source("urls", str(addresses(tmp_path / "many.txt", ["s3://b/0.jpg", "s3://b/1.jpg"])))
    assert few.items[0] == many.items[1]
    assert few.digest != many.digest


def test_urls__photos_come_from_the_store_and_missing_ones_are_a_reason(tmp_path, s3):
    fs.write_atomic(f"{s3}/photos/1.jpg", jpg())
    urls = [f"{s3}/photos/1.jpg", f"{s3}/photos/2.jpg"]
    source = open_source("urls", str(addresses(tmp_path / "list.txt", urls)))
    assert source.load(source.items[0], CANVAS).image.size == (64, 48)
    with pytest.raises(Unreadable, match=r"^missing$"):
        source.load(source.items[1], CANVAS)


def test_urls__signatures_are_used_and_never_written_down(tmp_path):
    signed = ["https://me:secret@host/a.jpg?X-Signature=secret", "https://host/a.jpg?X-Signature=other"]
    source = open_source("urls", str(addresses(tmp_path / "list.txt", signed)))
    (item,) = source.items[:]
    assert item.ref == fs.public(signed[0]) == "https://host/a.jpg"
    assert item.photo.file == signed[0]
    again = open_source("urls", str(addresses(tmp_path / "again.txt", signed[1:])))
    assert (again.digest, again.items[0].key) == (source.digest, item.key)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("no.txt", None, "no file"),
        ("empty.txt", b"", "not a list|no photo"),
        ("other.csv", b"a,b\n1,2\n", "no column 'url'; its columns: 'a', 'b'"),
        ("not.parquet", b"text", "not a list"),
    ],
)
def test_urls__no_list_of_addresses(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DenseCLIError, match=message) as caught:
        open_source("urls", str(tmp_path / name))
    assert "url" in caught.value.hint
