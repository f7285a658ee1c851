"""SA-1B: its tars, its folders, its masks."""

import io
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from building import build_here
from PIL import Image
from tars import jpg, write_tar

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.find import find
from densecli.pipeline.build_request import prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.mask_regions import told
from densecli.pipeline.sources import Index, Source, Unreadable, open_source, volumes
from densecli.pipeline.sources import tars as headers
from densecli.shards.geometry import Canvas
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz
from densecli.shards.segmentation import packed
from densecli.shards.tars import read_shard

CANVAS = Canvas(48)


def annotations(*masks: tuple[list[int], float, float]) -> bytes:
    """Of a photo of 64 x 48 pixels; masks are boxes."""
    rows = []
    for (x, y, width, height), iou, stability in masks:
        bitmap = np.zeros((48, 64), bool)
        bitmap[y : y + height, x : x + width] = True
        segmentation = {"size": [48, 64], "counts": packed([bitmap])[0].decode()}
        rows.append({"segmentation": segmentation, "predicted_iou": iou, "stability_score": stability})
    return json.dumps({"image": {}, "annotations": rows}).encode()


WHOLE = annotations(([0, 0, 32, 24], 0.9, 0.97), ([8, 8, 40, 40], 0.95, 0.96))


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
    write_tar(tmp_path / "sa1b" / "sa_000000.tar", release(7, 3, 5))
    write_tar(tmp_path / "sa1b" / "sa_000001.tar", release(1, 2))
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
    load, masks, items = pickle.loads(pickle.dumps((source.load, source.masks, source.items[1:3])))
    assert [load(item, CANVAS).image.size for item in items] == [(64, 48)] * 2
    assert [[mask[1:] for mask in masks(item).annotations] for item in items] == [
        [(0.9, 0.97), (0.95, 0.96)]
    ] * 2


def test_sa1b__an_extracted_folder_has_the_same_photos_and_masks(sa1b, tmp_path):
    for name in ("sa_000000", "sa_000001"):
        with tarfile.open(sa1b / f"{name}.tar") as file:
            file.extractall(tmp_path / "out" / name, filter="data")
    source = open_source("sa1b", str(tmp_path / "out"))
    assert [item.key for item in source.items] == ["sa_3", "sa_5", "sa_7", "sa_1", "sa_2"]
    tars = open_source("sa1b", str(sa1b))
    assert np.array_equal(pixels(source, 0), pixels(tars, 1))
    assert source.masks(source.items[0]) == tars.masks(tars.items[1])


def test_sa1b__a_tar_and_its_own_folder_are_the_same_photos_once(sa1b):
    with tarfile.open(sa1b / "sa_000001.tar") as file:
        file.extractall(sa1b / "sa_000001", filter="data")
    assert len(open_source("sa1b", str(sa1b)).items) == 5


def test_sa1b__a_photo_in_two_tars_is_refused(sa1b):
    write_tar(sa1b / "sa_000002.tar", release(3))
    with pytest.raises(DenseCLIError, match=r"more than once, the first sa_3\.jpg"):
        open_source("sa1b", str(sa1b))


def test_sa1b__digits_of_other_scripts_are_no_numbers(tmp_path):
    write_tar(tmp_path / "sa_000000.tar", {"sa_1.jpg": jpg(1), "sa_\u0661.jpg": jpg(2)})
    source = open_source("sa1b", str(tmp_path))
    assert [item.key for item in source.items] == ["sa_1"]
    assert source.passed.document()["not named as SA-1B's files"]["count"] == 1


def test_sa1b__a_folder_named_as_a_tar_is_no_tar(sa1b):
    (sa1b / "sa_999999.tar").mkdir()
    assert len(open_source("sa1b", str(sa1b)).items) > 0


def test_sa1b__a_limit_opens_no_more_tars_than_it_needs(sa1b, monkeypatch):
    monkeypatch.setattr(volumes, "THREADS", 1)
    (sa1b / "sa_000001.tar").write_bytes(b"not a tar")
    assert [item.key for item in open_source("sa1b", str(sa1b), limit=2).items] == ["sa_7", "sa_3"]


@pytest.mark.parametrize("cut", ["in a photo", "in a header", "between two photos", "at nothing"])
def test_sa1b__a_tar_that_is_not_whole_is_refused(sa1b, cut):
    path = sa1b / "sa_000001.tar"
    with tarfile.open(path) as file:
        third = file.getmembers()[2]
    end = {
        "in a photo": third.offset_data + 100,
        "in a header": third.offset + 100,
        "between two photos": third.offset,
        "at nothing": 0,
    }[cut]
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DenseCLIError, match=r"sa_000001\.tar is not a whole tar"):
        open_source("sa1b", str(sa1b))


@pytest.mark.parametrize("damage", [b"\xff", bytes(tarfile.BLOCKSIZE)], ids=["a byte", "all of it"])
def test_sa1b__a_tar_with_a_damaged_header_is_refused(sa1b, damage):
    path = sa1b / "sa_000001.tar"
    with tarfile.open(path) as file:
        start = file.getmembers()[2].offset
    data = path.read_bytes()
    path.write_bytes(data[:start] + damage + data[start + len(damage) :])
    with pytest.raises(DenseCLIError, match=r"sa_000001\.tar is not a whole tar"):
        open_source("sa1b", str(sa1b))


def test_sa1b__headers_are_read_and_photos_are_not(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "sa_000000.tar", {f"sa_{i}.jpg": bytes(2**20) for i in range(20)})
    read = 0

    class Counting(io.FileIO):
        def readinto(self, buffer):
            nonlocal read
            n = super().readinto(buffer)
            read += n
            return n

    monkeypatch.setattr(fs, "open_to_seek", lambda url: io.BufferedReader(Counting(url)))

    def all_members(members, _):
        return [(name.encode(), *place, 0, 0) for name, place in members.items()]

    rows, _ = headers.scan_tar(str(path), all_members)
    assert len(rows) == 20
    assert read < 0.05 * path.stat().st_size


def test_index__a_tar_is_scanned_again_only_when_it_changed(sa1b, tmp_path, monkeypatch):
    scanned, scan = [], headers.scan_tar

    def counting(url, wanted, **how):
        scanned.append(Path(url).name)
        return scan(url, wanted, **how)

    monkeypatch.setattr(headers, "scan_tar", counting)
    index = Index(folder=str(tmp_path / "index"), save=True)
    first = open_source("sa1b", str(sa1b), index=index)
    assert sorted(scanned) == ["sa_000000.tar", "sa_000001.tar"]
    again = open_source("sa1b", str(sa1b), index=index)
    assert len(scanned) == 2
    assert (again.identity, again.items[:]) == (first.identity, first.items[:])

    write_tar(sa1b / "sa_000001.tar", release(1, 2, 4))
    changed = open_source("sa1b", str(sa1b), index=index)
    assert scanned[2:] == ["sa_000001.tar"]
    assert changed.items[5].key == "sa_4"
    assert changed.digest != first.digest


def test_index__one_that_is_damaged_is_made_again(sa1b, tmp_path):
    index = Index(folder=str(tmp_path / "index"), save=True)
    first = open_source("sa1b", str(sa1b), index=index)
    whole = {path: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    assert len(whole) == 2
    for path, data in whole.items():
        path.write_bytes(data.replace(b"sa_", b"sb_", 1))
    path.write_bytes(data[: len(data) // 2])
    assert open_source("sa1b", str(sa1b), index=index).items[:] == first.items[:]
    assert {path: path.read_bytes() for path in whole} == whole


def test_index__an_extracted_folder_is_listed_again_only_when_it_changed(tmp_path, monkeypatch):
    root, listed = tmp_path / "sa1b", []
    for name, numbers in {"sa_000000": (1, 2), "sa_000001": (3,)}.items():
        for photo, data in release(*numbers).items():
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / photo).write_bytes(data)
    monkeypatch.setattr(
        "densecli.pipeline.sources.sa1b.find",
        lambda url, *_, **how: [listed.append(Path(url).name), find(url, *_, **how)][1],
    )
    index = Index(folder=str(tmp_path / "index"), save=True)
    first = open_source("sa1b", str(root), index=index)
    assert sorted(listed) == ["sa1b", "sa_000000", "sa_000001"]
    listed.clear()
    again = open_source("sa1b", str(root), index=index)
    assert listed == ["sa1b"]
    assert (again.identity, again.items[:]) == (first.identity, first.items[:])
    assert again.masks(again.items[2]).annotations
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


def test_masks__are_the_regions_of_every_teacher(from_sa1b):
    request, reports = build_here(from_sa1b)
    assert [report.samples for report in reports] == [2, 2, 1]
    for record in read_joined(request.columns(), "000001"):
        boxes = decode_npz(record.parts["regions"]["npz"])["boxes"]
        # 64 x 48 pixels on a canvas of 48: the surer mask first.
        np.testing.assert_allclose(boxes, [[0.125, 0.125, 0.75, 0.75], [0, 0, 0.5, 0.375]])
        assert decode_npz(record.parts["scenes-s"]["npz"])["count"].shape[0] == 2
        assert decode_npz(record.parts["crops-scenes-s"]["npz"])["x"].shape[0] == 2


def test_masks__other_thresholds_are_another_column_and_read_no_photo_again(from_sa1b):
    def gone(item, canvas):
        raise AssertionError("the photos were read again")

    request, _ = build_here(replace(from_sa1b, teachers=("scenes-s",)))
    other, source = prepare(replace(from_sa1b, teachers=(), weights={}, min_iou=0.92))
    replace(other, load=gone).builder().build(unit_of(source, "000000", 2))
    assert other.columns()[1].id != request.columns()[1].id
    for _, parts in read_shard(other.columns()[1], "000000"):
        assert len(decode_npz(parts["npz"])["boxes"]) == 1


def test_defaults__data_and_store_of_sa1b_are_named_after_it(sa1b, tmp_path, monkeypatch):
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


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"annotations": 5}', b"\xff"])
def test_sa1b__damaged_annotations_are_a_reason(sa1b, data):
    write_tar(sa1b / "sa_000000.tar", {"sa_1.jpg": jpg(), "sa_1.json": data})
    (sa1b / "sa_000001.tar").unlink()
    source = open_source("sa1b", str(sa1b))
    with pytest.raises(Unreadable, match=r"^bad-annotations$"):
        source.masks(source.items[0])


def test_masks__photos_without_them_have_grids_and_are_told(from_sa1b, sa1b):
    odd = {"segmentation": {"size": [1 << 40, 1 << 40], "counts": "0"}}
    members = {
        **{f"sa_{n}.jpg": jpg(seed=n) for n in (8, 9, 10)},
        "sa_9.json": b"{",
        "sa_10.json": json.dumps({"annotations": [odd, {"bbox": [0, 0, 1, 1]}]}).encode(),
    }
    write_tar(sa1b / "sa_000002.tar", members)
    request, reports = build_here(replace(from_sa1b, teachers=("scenes-s",), shard_size=8))
    counts = reports[0].masks
    assert (reports[0].samples, counts.photos, counts.on_grids, counts.masks) == (8, 5, 3, 10)
    assert counts.left_out == {
        "all of a photo (bad-annotations)": 1,
        "of another size than the photo": 1,
        "no segmentation": 1,
    }
    assert told(counts.document) == (
        "Masks: 10 in 5 photos; photos on grids for want of masks: 3; masks left out: "
        "all of a photo (bad-annotations): 1, no segmentation: 1, of another size than the photo: 1"
    )
    sizes = [len(record.regions().boxes) for record in read_joined(request.columns(), "000000")]
    assert sizes == [2] * 5 + [400] * 3
    error = request.columns()[1].receipt("000000").error
    assert error == {"masks": 1.25, "on_grids": 0.375, "masks_left_out": 0.375}


def test_sa1b_like__builds_with_masks(tiny, shared_data):
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
    request, reports = build_here(config)
    assert (reports[0].samples, reports[0].skipped) == (3, {})
    for record in read_joined(request.columns(), "000000"):
        boxes = decode_npz(record.parts["regions"]["npz"])["boxes"]
        valid = json.loads(bytes(record.parts["images"]["json"]))["valid"]
        assert len(boxes) > 1 and (boxes >= 0).all() and (boxes <= np.float32(valid[2:] * 2)).all()
