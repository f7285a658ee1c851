import io
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from building import build_here
from PIL import Image, ImageOps

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import Stopped
from densecli.pipeline.batcher import live_targets
from densecli.pipeline.build_request import prepare, unit_of
from densecli.pipeline.unit import PhotoError
from densecli.shards import joined
from densecli.shards.geometry import Canvas
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz
from densecli.shards.tars import read_shard


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five files: two photos, an empty one, a cut one, and one that is no photo."""
    folder = tmp_path / "photos"
    folder.mkdir()
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8))
    pixels = np.asarray(coarse.resize((90, 60), Image.Resampling.BICUBIC))
    Image.fromarray(pixels).save(folder / "b.png")
    Image.fromarray(pixels).convert("L").save(folder / "d.jpg")
    (folder / "a.jpg").write_bytes(b"")
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes()[:-1000])
    (folder / "e.jpg").write_text("not a photo")
    return folder


@pytest.fixture
def from_folder(tiny, photos):
    return replace(
        tiny,
        dataset="folder",
        cut="listed",
        data=str(photos),
        split=None,
        limit=None,
        canvas=48,
        categories="scenes",
    )


def test_images__hold_the_resized_photo_and_where_it_came_from(from_folder, photos):
    request, _ = build_here(replace(from_folder, teachers=(), weights={}, shard_size=8))
    samples = dict(read_shard(request.store.images, "000000"))
    assert list(samples) == ["b", "d"]
    assert json.loads(samples["b"]["json"]) == {
        "width": 90,
        "height": 60,
        "source": "b.png",
        "valid": [0, 0, 1, pytest.approx(32 / 48)],
    }
    stored = Image.open(io.BytesIO(samples["b"]["jpg"]))
    expected = Canvas(48).resize(Image.open(photos / "b.png"))
    assert (stored.format, stored.size) == ("JPEG", (48, 32))
    assert np.abs(np.asarray(stored, int) - np.asarray(expected, int)).mean() < 8


def test_images__an_orientation_that_was_not_applied_does_not_come_along(tiny, tmp_path):
    exif = Image.Exif()
    exif[ImageOps.ExifTags.Base.Orientation] = 6
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    Image.new("RGB", (90, 60), "red").save(tmp_path / "coco" / "train2017" / "a.jpg", exif=exif)
    config = replace(
        tiny, dataset="coco", data=str(tmp_path / "coco"), split=None, canvas=48, teachers=(), weights={}
    )
    request, _ = build_here(config)
    ((_, parts),) = read_shard(request.store.images, "000000")
    stored = Image.open(io.BytesIO(parts["jpg"]))
    assert stored.size == (48, 32)
    assert not stored.getexif()


def test_unreadable_photos__are_skipped_and_counted_by_reason(from_folder):
    request, reports = build_here(replace(from_folder, shard_size=8))
    reasons = {"empty": 1, "truncated": 1, "not-an-image": 1}
    assert reports[0].skipped == reasons
    assert request.store.images.receipt("000000").skipped == reasons
    assert [r.key for r in read_joined(request.columns(), "000000")] == ["b", "d"]


def test_a_shard_of_unreadable_photos__is_valid_and_empty(from_folder, photos):
    (photos / "b.png").write_bytes(b"")
    (photos / "d.jpg").write_bytes(b"")
    request, reports = build_here(from_folder)
    assert [report.samples for report in reports] == [0, 0]
    assert [read_joined(request.columns(), shard) for shard in request.store.shard_names] == [[], []]
    assert all(column.complete for column in request.columns())


def test_regions__are_the_plan_on_the_photo_and_not_on_the_padding(from_folder):
    request, _ = build_here(replace(from_folder, shard_size=8))
    for record in read_joined(request.columns(), "000000"):
        arrays = decode_npz(record.parts["regions"]["npz"])
        assert arrays["boxes"].shape == (400, 4)
        assert arrays["boxes"].min() == 0
        np.testing.assert_allclose(arrays["boxes"][:, 2:].max(0), [1, 32 / 48], atol=1e-6)
        assert len(arrays["offsets"]) == 26


def test_targets__a_shard_that_takes_long_says_how_far_it_is(tiny, monkeypatch, capsys):
    monkeypatch.setattr("densecli.pipeline.shard_builder.QUIET_SECONDS", 0)
    build_here(tiny)
    assert re.search("4/4 photos, .* of shard 000000", capsys.readouterr().err)


def test_targets__of_several_teachers_share_the_decode(tiny, monkeypatch):
    decoded = []

    def counting(jpg):
        decoded.append(jpg)
        return decode(jpg)

    decode = joined._decode
    monkeypatch.setattr(joined, "_decode", counting)
    _, reports = build_here(replace(tiny, teachers=("scenes-s", "features-scenes-s", "self-scenes-s")))
    assert len(decoded) == sum(report.samples for report in reports) == tiny.limit


def test_targets__come_from_the_stored_jpeg(from_folder, photo_of):
    request, _ = build_here(replace(from_folder, shard_size=8, batch_size=1))
    teacher = request.targets[0][0].load("cpu")
    for record in read_joined(request.columns(), "000000"):
        photo = photo_of(record, 48)
        arrays, _ = teacher.encode(photo, *live_targets(teacher, [photo], batch_size=1))
        stored = decode_npz(record.parts["scenes-s"]["npz"])
        assert stored.keys() == arrays.keys()
        assert all(np.array_equal(stored[name], arrays[name]) for name in arrays)


def test_second_teacher__touches_no_existing_file(tiny, files_of):
    request, _ = build_here(tiny)
    before = files_of(request.store.root)
    both = replace(
        tiny, teachers=("scenes-s", "scenes-l"), weights={"scenes-s": "random:0", "scenes-l": "random:0"}
    )
    build_here(both)
    after = files_of(request.store.root)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("targets/scenes-l-") for name in after.keys() - before.keys())
    assert len(after) > len(before)


@pytest.mark.parametrize("lost", ["images/000001.tar", "images/000001.json", "targets/*/000000.json"])
def test_a_lost_file__is_made_again_and_nothing_else(tiny, files_of, lost):
    request, _ = build_here(tiny)
    before = files_of(request.store.root)
    (path,) = Path(request.store.root).glob(lost)
    path.unlink()
    _, reports = build_here(tiny)
    after = files_of(request.store.root)
    assert [report.shard for report in reports] == [path.stem]
    name, folder = str(path.relative_to(request.store.root)), path.parent.relative_to(request.store.root)
    untouched = {n for n in before if n not in (f"{folder}/{path.stem}.tar", f"{folder}/{path.stem}.json")}
    assert {n: after[n] for n in untouched} == {n: before[n] for n in untouched}
    if name.endswith(".tar"):
        assert after[name][2] == before[name][2]


@pytest.mark.parametrize(("store_boxes", "tars"), [(False, 4), (True, 6)])
def test_rebuild__is_byte_identical(tiny, tmp_path, files_of, store_boxes, tars):
    tiny = replace(tiny, store_boxes=store_boxes)
    root = Path(build_here(tiny)[0].store.root)
    first = {name: data for name, (_, _, data) in files_of(root).items() if not name.endswith(".json")}
    shutil.rmtree(root)
    build_here(tiny)
    second = {name: data for name, (_, _, data) in files_of(root).items() if not name.endswith(".json")}
    assert first == second
    assert len(first) == tars


def test_receipts__say_where_the_time_went(tiny):
    request, reports = build_here(replace(tiny, store_boxes=True))
    images, regions, labels = (column.receipt("000000") for column in request.columns())
    assert images.seconds.keys() == {"decode", "resize", "encode", "write"}
    assert regions.seconds.keys() == {"encode", "write"}
    assert labels.seconds.keys() == {"decode", "prepare", "wait", "teacher", "encode", "write"}
    assert labels.gpu_seconds == 0
    assert labels.error["max_tv"] > 0
    assert reports[0].seconds.keys() == {"decode", "resize", "encode", "write", "prepare", "wait", "teacher"}


def test_unit__carries_its_own_photos_alone(tiny):
    _, source = prepare(tiny)
    assert [item.ref for item in unit_of(source, "000001", 4).items] == ["4", "5"]


def test_threads__and_two_units_at_once_write_the_same_bytes(tiny, tmp_path, files_of):
    config = replace(tiny, limit=12, batch_size=3)
    config = replace(
        config, teachers=("scenes-s", "crops-scenes-s", "self-scenes-s"), views=1, store_boxes=True
    )
    one_by_one, _ = build_here(config)
    request, source = prepare(replace(config, store=str(tmp_path / "threads")))
    builder = request.builder(threads=3)
    with ThreadPoolExecutor(2) as pool:
        reports = pool.map(builder.build, [unit_of(source, shard, 4) for shard in request.store.shard_names])
        assert sum(report.samples for report in reports) == 12
    first, second = files_of(one_by_one.store.root), files_of(request.store.root)
    tars = [name for name in first if name.endswith(".tar")]
    assert len(tars) == 5 * 3
    assert [second[name][2] for name in tars] == [first[name][2] for name in tars]


def test_two_units_at_once__photos_are_read_while_the_teacher_is_busy(tiny):
    request, source = prepare(replace(tiny, limit=8))
    reading, load = Event(), request.load

    def loading(item, canvas):
        if item.ref == "4":
            reading.set()
        return load(item, canvas)

    builder = replace(request, load=loading).builder(threads=2)
    (_, teacher) = builder.config.targets[0]
    look, overlapped = teacher.forward, []
    teacher.forward = lambda pictures: overlapped.append(reading.wait(60)) or look(pictures)
    units = [unit_of(source, shard, 4) for shard in request.store.shard_names]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(builder.build, units))
    assert overlapped == [True, True]


def test_two_units_at_once__one_is_written_while_the_other_goes_on(tiny, monkeypatch):
    request, source = prepare(replace(tiny, limit=8))
    loaded, looked, going_on, waited = count(), count(), {"images": Event(), "targets": Event()}, {}
    write = fs.write_atomic

    def loading(item, canvas):
        if next(loaded) == 4:
            going_on["images"].set()
        return request.load(item, canvas)

    def looking(pictures):
        if next(looked) == 1:
            going_on["targets"].set()
        return look(pictures)

    def writing(url, data):
        for kind, event in going_on.items():
            if f"/{kind}/" in url and url.endswith(".tar") and kind not in waited:
                waited[kind] = event.wait(60)
        write(url, data)

    builder = replace(request, load=loading).builder(threads=2)
    (_, teacher) = builder.config.targets[0]
    look, teacher.forward = teacher.forward, looking
    monkeypatch.setattr(fs, "write_atomic", writing)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(builder.build, [unit_of(source, shard, 4) for shard in request.store.shard_names]))
    assert waited == {"images": True, "targets": True}


@pytest.mark.parametrize("column", [0, 2])
def test_stop__leaves_whole_shards_or_none(tiny, files_of, column):
    """Told so at the first photo, or when the teacher looks at the first batch."""
    request, source = prepare(replace(tiny, batch_size=1, store_boxes=True))
    stop, load = Event(), request.load
    builder = replace(request, load=lambda *of: (column == 0 and stop.set()) or load(*of)).builder()
    _, teacher = builder.config.targets[0]
    look = teacher.forward
    teacher.forward = lambda pictures: stop.set() or look(pictures)
    with pytest.raises(Stopped):
        builder.build(unit_of(source, "000000", 4), stop)
    assert [c.has("000000") for c in request.columns()] == [i < column for i in range(3)]
    assert not [name for name in files_of(tiny.store) if name.endswith(".tmp")]
    builder.build(unit_of(source, "000000", 4))
    assert all(c.has("000000") for c in request.columns())


def test_probe__a_node_that_sees_other_files_says_so(from_folder, photos):
    request, source = prepare(from_folder)
    b = source.items[1]
    with pytest.raises(DenseCLIError, match=r"does not see .*/store"):
        replace(request, probe=b).builder()
    request.make_columns()
    assert replace(request, probe=b).builder().config.images.missing() == ["000000", "000001"]
    (photos / "b.png").unlink()
    with pytest.raises(DenseCLIError, match=r"cannot read the photo b\.png: missing") as caught:
        replace(request, probe=b).builder()
    assert "Every node" in caught.value.hint


def test_device__that_names_a_gpu_is_refused(tiny):
    with pytest.raises(DenseCLIError, match="Ray chooses") as caught:
        prepare(replace(tiny, device="cuda:1"))
    assert "CUDA_VISIBLE_DEVICES" in caught.value.hint


def test_a_photo_that_fails__is_named(from_folder):
    request, source = prepare(from_folder)

    def failing(item, canvas):
        raise TypeError("what a strange photo")

    with pytest.raises(PhotoError, match=r"^TypeError: what a strange photo, at the photo a\.jpg$"):
        replace(request, load=failing).builder().build(unit_of(source, "000000", 4))


def test_a_photo_that_its_teacher_fails_at__is_named(tiny):
    request, source = prepare(tiny)
    builder = request.builder()
    ((_, teacher),) = builder.config.targets

    def failing(picture):
        raise ValueError("no such picture")

    teacher.inputs = failing
    with pytest.raises(PhotoError, match=r"^ValueError: no such picture, at the photo \S+$"):
        builder.build(unit_of(source, "000000", 4))


def test_too_little_memory__skips_the_photo(from_folder):
    request, source = prepare(from_folder)

    def hungry(item, canvas):
        if item.ref == "b.png":
            raise MemoryError
        return request.load(item, canvas)

    report = replace(request, load=hungry).builder().build(unit_of(source, "000000", 8))
    assert report.skipped["out-of-memory"] == 1
    assert report.skipped_first["out-of-memory"] == ["b.png"]


def test_max_pixels__skips_larger_photos_and_makes_another_data_set(from_folder):
    request, source = prepare(replace(from_folder, max_pixels=5000, shard_size=8))
    report = request.builder().build(unit_of(source, "000000", 8))
    # b.png and d.jpg; the others cannot be opened at all, or are as large as b.png.
    assert (report.samples, report.skipped["too-large"]) == (0, 3)
    assert source.identity["max_pixels"] == 5000
    assert "max_pixels" not in prepare(replace(from_folder, store=None))[1].identity
