"""Sources in tars: SA-1B, WebDatasets; and lists of addresses."""

import io
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from pipeline.config import BuildConfig
from pipeline.job import prepare, unit_of
from pipeline.sources import Index, Source, Unreadable, open_source, volumes
from shards import fs
from shards.errors import DenseCLIError
from shards.geometry import Canvas
from shards.reader import decode_npz, read_joined, read_shard

CANVAS = Canvas(48)


def jpg(width: int = 64, height: int = 48, seed: int = 0, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def annotations(*masks: tuple[list[float], float, float]) -> bytes:
    rows = [{"bbox": box, "predicted_iou": iou, "stability_score": s} for box, iou, s in masks]
    return json.dumps({"image": {}, "annotations": rows}).encode()


WHOLE = annotations(([0.0, 0.0, 32.0, 24.0], 0.9, 0.97), ([8.0, 8.0, 40.0, 40.0], 0.95, 0.96))


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def release(*numbers: int) -> dict[str, bytes]:
    """Members of a tar of SA-1B."""
    return {
        f"./sa_{n}.{extension}": data
        for n in numbers
        for extension, data in (("jpg", jpg(seed=n)), ("json", WHOLE))
    }


@pytest.fixture
def sa1b(tmp_path: Path) -> Path:
    """Two tars: photos 7, 3, 5, then 1 and 2."""
    tar(tmp_path / "sa1b" / "sa_000000.tar", release(7, 3, 5))
    tar(tmp_path / "sa1b" / "sa_000001.tar", release(1, 2))
    return tmp_path / "sa1b"


def pixels(source: Source, i: int) -> np.ndarray:
    return np.asarray(source.load(source.items[i], CANVAS).image)


def test_sa1b__lists_tar_after_tar_and_finds_each_photo_in_its_own(sa1b):
    source = open_source("sa1b", str(sa1b))
    assert [item.key for item in source.items] == ["sa_7", "sa_3", "sa_5", "sa_1", "sa_2"]
    assert [item.ref for item in source.items[2:4]] == ["sa_000000.tar/sa_5.jpg", "sa_000001.tar/sa_1.jpg"]
    assert source.identity["n"] == len(source.items) == 5
    for i, n in enumerate((7, 3, 5, 1, 2)):
        expected = np.asarray(Image.open(io.BytesIO(jpg(seed=n))).convert("RGB"))
        assert np.array_equal(pixels(source, i), expected)


def test_sa1b__the_loader_travels_without_the_listing(sa1b):
    source = open_source("sa1b", str(sa1b))
    load, items = pickle.loads(pickle.dumps((source.load, source.items[1:3])))
    assert [load(item, CANVAS).masks for item in items] == [
        [[0, 0, 32, 24, 0.9, 0.97], [8, 8, 40, 40, 0.95, 0.96]]
    ] * 2


def test_sa1b__an_extracted_folder_has_the_same_photos_and_masks(sa1b, tmp_path):
    for name in ("sa_000000", "sa_000001"):
        with tarfile.open(sa1b / f"{name}.tar") as file:
            file.extractall(tmp_path / "out" / name, filter="data")
    source = open_source("sa1b", str(tmp_path / "out"))
    assert [item.key for item in source.items] == ["sa_3", "sa_5", "sa_7", "sa_1", "sa_2"]
    tars = open_source("sa1b", str(sa1b))
    assert np.array_equal(pixels(source, 0), pixels(tars, 1))
    assert source.load(source.items[0], CANVAS).masks == tars.load(tars.items[1], CANVAS).masks


def test_sa1b__a_tar_and_its_own_folder_are_the_same_photos_once(sa1b):
    with tarfile.open(sa1b / "sa_000001.tar") as file:
        file.extractall(sa1b / "sa_000001", filter="data")
    assert len(open_source("sa1b", str(sa1b)).items) == 5


def test_sa1b__a_photo_in_two_tars_is_refused(sa1b):
    tar(sa1b / "sa_000002.tar", release(3))
    with pytest.raises(DenseCLIError, match=r"more than once, the first sa_3\.jpg"):
        open_source("sa1b", str(sa1b))


def test_sa1b__a_limit_opens_no_more_tars_than_it_needs(sa1b, monkeypatch):
    monkeypatch.setattr(volumes, "THREADS", 1)
    (sa1b / "sa_000001.tar").write_bytes(b"not a tar")
    assert [item.key for item in open_source("sa1b", str(sa1b), limit=2).items] == ["sa_7", "sa_3"]


@pytest.mark.parametrize("cut", ["in a photo", "between two photos", "at nothing"])
def test_sa1b__a_tar_that_is_not_whole_is_refused(sa1b, cut):
    path = sa1b / "sa_000001.tar"
    with tarfile.open(path) as file:
        third = file.getmembers()[2]
    end = {"in a photo": third.offset_data + 100, "between two photos": third.offset, "at nothing": 0}[cut]
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DenseCLIError, match=r"sa_000001\.tar is not a whole tar"):
        open_source("sa1b", str(sa1b))


def test_sa1b__headers_are_read_and_photos_are_not(tmp_path, monkeypatch):
    path = tar(tmp_path / "sa_000000.tar", {f"sa_{i}.jpg": bytes(2**20) for i in range(20)})
    read = 0

    class Counting(io.FileIO):
        def readinto(self, buffer):
            nonlocal read
            n = super().readinto(buffer)
            read += n
            return n

    monkeypatch.setattr(fs, "open_to_seek", lambda url: io.BufferedReader(Counting(url)))
    assert len(volumes.scan_tar(str(path), path.stat().st_size, lambda name: True)) == 20
    assert read < 0.05 * path.stat().st_size


def test_index__a_tar_is_scanned_again_only_when_it_changed(sa1b, tmp_path, monkeypatch):
    scanned, scan = [], volumes.scan_tar

    def counting(url, size, wanted):
        scanned.append(Path(url).name)
        return scan(url, size, wanted)

    monkeypatch.setattr(volumes, "scan_tar", counting)
    index = Index(folder=str(tmp_path / "index"), save=True)
    first = open_source("sa1b", str(sa1b), index=index)
    assert sorted(scanned) == ["sa_000000.tar", "sa_000001.tar"]
    again = open_source("sa1b", str(sa1b), index=index)
    assert len(scanned) == 2
    assert (again.identity, again.items[:]) == (first.identity, first.items[:])

    tar(sa1b / "sa_000001.tar", release(1, 2, 4))
    changed = open_source("sa1b", str(sa1b), index=index)
    assert scanned[2:] == ["sa_000001.tar"]
    assert changed.items[5].key == "sa_4"
    assert changed.digest != first.digest


def test_index__an_extracted_folder_is_listed_again_only_when_it_changed(tmp_path, monkeypatch):
    root, listed = tmp_path / "sa1b", []
    for name, numbers in {"sa_000000": (1, 2), "sa_000001": (3,)}.items():
        for photo, data in release(*numbers).items():
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / photo).write_bytes(data)
    find = fs.find
    monkeypatch.setattr(fs, "find", lambda url, *_: [listed.append(Path(url).name), find(url, *_)][1])
    index = Index(folder=str(tmp_path / "index"), save=True)
    first = open_source("sa1b", str(root), index=index)
    assert sorted(listed) == ["sa1b", "sa_000000", "sa_000001"]
    listed.clear()
    again = open_source("sa1b", str(root), index=index)
    assert listed == ["sa1b"]
    assert (again.identity, again.items[:]) == (first.identity, first.items[:])
    assert again.load(again.items[2], CANVAS).masks
    (root / "sa_000001" / "sa_4.jpg").write_bytes(jpg())
    assert [item.key for item in open_source("sa1b", str(root), index=index).items][-1] == "sa_4"
    assert listed == ["sa1b", "sa1b", "sa_000001"]
    on_disk = sum(path.stat().st_size for path in (tmp_path / "index").iterdir())
    assert first.index_bytes == pytest.approx(on_disk * 2 / 3, abs=200)


def test_index__is_in_the_store_and_a_dry_run_writes_none(tiny, sa1b):
    config = replace(
        tiny, dataset="sa1b", data=str(sa1b), split=None, limit=None, teachers=(), weights={}, canvas=48
    )
    prepare(replace(config, dry_run=True))
    assert not Path(config.store).exists()
    prepare(config)
    assert [path.name for path in Path(config.store).iterdir()] == ["index"]


@pytest.fixture
def from_sa1b(tiny, sa1b):
    return replace(
        tiny,
        dataset="sa1b",
        data=str(sa1b),
        split=None,
        limit=None,
        canvas=48,
        categories="scenes",
        shard_size=2,
        regions="masks",
        teachers=("scenes-s", "crops-scenes-s", "self-scenes-s"),
    )


def test_masks__are_the_regions_of_every_teacher(from_sa1b, build_here):
    job, reports = build_here(from_sa1b)
    assert [report.samples for report in reports] == [2, 2, 1]
    for record in read_joined(job.columns(), "000001"):
        boxes = decode_npz(record.parts["regions"]["npz"])["boxes"]
        # 64 x 48 pixels on a canvas of 48: the surer mask first.
        np.testing.assert_allclose(boxes, [[0.125, 0.125, 0.75, 0.75], [0, 0, 0.5, 0.375]])
        assert decode_npz(record.parts["scenes-s"]["npz"])["count"].shape[0] == 2
        assert decode_npz(record.parts["crops-scenes-s"]["npz"])["x"].shape[0] == 2


def test_masks__other_thresholds_are_another_column_and_need_the_store_alone(from_sa1b, build_here):
    def gone(item, canvas):
        raise AssertionError("the photos were read again")

    job, _ = build_here(replace(from_sa1b, teachers=("scenes-s",)))
    other, source = prepare(replace(from_sa1b, teachers=(), weights={}, min_iou=0.92))
    replace(other, load=gone).builder().build(unit_of(source, "000000", 2))
    assert other.columns()[1].id != job.columns()[1].id
    for _, parts in read_shard(other.columns()[1], "000000"):
        assert len(decode_npz(parts["npz"])["boxes"]) == 1


def test_defaults__data_and_store_of_sa1b_are_named_after_it(sa1b, tmp_path, monkeypatch, build_here):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DENSECLI_DATA", raising=False)
    Path("data").mkdir()
    Path("data/sa1b").symlink_to(sa1b)
    config = BuildConfig(dataset="sa1b", teachers=("crops-scenes-s",), canvas=48, shard_size=4, device="cpu")
    _, reports = build_here(config)
    assert [report.samples for report in reports] == [4, 1]
    assert (tmp_path / "stores" / "sa1b-48" / "store.json").exists()


@pytest.mark.parametrize("dataset", ["folder", "sa1b"])
def test_masks__data_without_any_is_refused_before_the_build(tiny, tmp_path, dataset):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "sa_1.jpg").write_bytes(jpg())
    config = replace(tiny, dataset=dataset, data=str(tmp_path / "photos"), split=None, regions="masks")
    with pytest.raises(DenseCLIError, match="has no masks"):
        prepare(config)


BAD = [b"{", b"[]", annotations(([1.0, 2.0], 1, 1)), annotations(([1.0, 2.0, 3.0, 4.0], float("nan"), 1))]


@pytest.mark.parametrize("data", BAD)
def test_sa1b__damaged_annotations_are_a_reason(sa1b, data):
    tar(sa1b / "sa_000000.tar", {"sa_1.jpg": jpg(), "sa_1.json": data})
    (sa1b / "sa_000001.tar").unlink()
    source = open_source("sa1b", str(sa1b))
    with pytest.raises(Unreadable, match=r"^bad-annotations$"):
        source.load(source.items[0], CANVAS)


def test_sa1b__a_photo_without_annotations_has_no_masks(sa1b):
    tar(sa1b / "sa_000002.tar", {"sa_9.jpg": jpg()})
    source = open_source("sa1b", str(sa1b))
    assert source.has_masks
    assert source.load(source.items[5], CANVAS).masks == []


def webdataset(folder: Path) -> Path:
    """Two tars with the same sample names; one of the samples is a PNG with a mask and a caption."""
    tar(
        folder / "a" / "000.tar",
        {"1.txt": b"-", "1.jpg": jpg(seed=1), "2.seg.png": jpg(), "2.PNG": jpg(kind="PNG")},
    )
    tar(folder / "a" / "001.tar", {"1.jpg": jpg(seed=3), "dir/1.jpg": jpg(seed=4), "__meta__.json": b"{}"})
    return folder


def test_webdataset__keys_name_the_tar_and_the_sample(tmp_path):
    source = open_source("webdataset", str(webdataset(tmp_path)))
    assert [item.key for item in source.items] == ["a_000+1", "a_000+2", "a_001+1", "a_001+dir_1"]
    assert source.items[1].ref == "a/000.tar/2.PNG"
    assert np.array_equal(pixels(source, 2), np.asarray(Image.open(io.BytesIO(jpg(seed=3))).convert("RGB")))


def test_webdataset__long_names_and_names_alike_keep_unique_keys(tmp_path):
    names = ["x" * 90, "x" * 89 + "y", "a b", "a_b"]
    tar(tmp_path / ("long-" * 20) / "0.tar", {f"{name}.jpg": b"-" for name in names})
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


def test_urls__photos_come_from_the_store_and_missing_ones_are_a_reason(tmp_path):
    fsspec.filesystem("memory").pipe_file("/photos/1.jpg", jpg())
    urls = ["memory://photos/1.jpg", "memory://photos/2.jpg"]
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
        ("other.csv", b"a,b\n1,2\n", "not a list"),
        ("not.parquet", b"text", "not a list"),
    ],
)
def test_urls__no_list_of_addresses(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DenseCLIError, match=message) as caught:
        open_source("urls", str(tmp_path / name))
    assert "url" in caught.value.hint


def test_sa1b_like__builds_with_masks(tiny, build_here, shared_data):
    config = replace(
        tiny,
        dataset="sa1b",
        data=str(shared_data / "sa1b_like"),
        split=None,
        limit=3,
        canvas=48,
        teachers=(),
        weights={},
        regions="masks",
    )
    job, reports = build_here(config)
    assert (reports[0].samples, reports[0].skipped) == (3, {})
    for record in read_joined(job.columns(), "000000"):
        boxes = decode_npz(record.parts["regions"]["npz"])["boxes"]
        valid = json.loads(bytes(record.parts["images"]["json"]))["valid"]
        assert len(boxes) > 1 and (boxes >= 0).all() and (boxes <= np.float32(valid[2:] * 2)).all()
