import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import build_here
from PIL import Image

from densecli.core.stage_timer import StageTimer
from densecli.pipeline.batcher import Batcher, Run, live_targets
from densecli.pipeline.teachers import Photo
from densecli.pipeline.teachers.crops import CropsConfig
from densecli.shards.codecs import Rows, codec_from_spec
from densecli.shards.geometry import Canvas
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz
from densecli.shards.region_plans import region_plan
from densecli.shards.regions import Regions, stored_views


@pytest.fixture
def crops(tiny):
    return replace(tiny, teachers=("crops-scenes-s",), views=2, regions="grid-clipself")


@pytest.mark.parametrize(
    ("shard_size", "batch_size", "codec"), [(1, 5, "int8"), (2, 16, "int8"), (4, 7, "fp16")]
)
def test_stored_target__equals_the_live_teacher(crops, photo_of, shard_size, batch_size, codec):
    request, _ = build_here(
        replace(crops, limit=4, shard_size=shard_size, batch_size=batch_size, codec=codec)
    )
    columns = request.columns()
    teacher = request.targets[0][0].load("cpu")
    rows = codec_from_spec(columns[2].spec["codec"])
    for shard in request.store.shard_names:
        for record in read_joined(columns, shard):
            photo = photo_of(record, request.store.canvas)
            (live,) = live_targets(teacher, [photo])
            arrays = decode_npz(record.parts["crops-scenes-s"]["npz"])
            assert len(live) == sum(len(photo.regions.view(view)) for view in arrays["views"])
            bound = columns[2].receipt(shard).error["max_abs"] + 1e-6
            assert np.abs(rows.decode(arrays) - live).max() <= bound < 0.01


def test_live__is_the_image_embedding_of_each_cells_crop(crops, photo_of):
    request, _ = build_here(replace(crops, limit=1))
    (record,) = read_joined(request.columns()[:2], "000000")
    photo = photo_of(record, request.store.canvas)
    teacher = request.targets[0][0].load("cpu")
    (live,) = live_targets(teacher, [photo])
    views = stored_views(photo.key, photo.regions.n_views, 2)
    boxes = np.concatenate([photo.regions.boxes[photo.regions.view(view)] for view in views])
    assert live.shape == (len(boxes), 64)
    for box, row in zip(boxes, live, strict=True):
        crop = torch.tensor(photo.canvas.crop(photo.image, box, 96)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = F.normalize(teacher.model.encode_image(teacher.model.normalize(crop)), dim=1)[0]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def grids(count):
    canvas = Canvas(96)
    return [
        Photo(
            key=f"p{i}",
            image=np.random.default_rng(i).integers(0, 255, (60, 96, 3), np.uint8),
            canvas=canvas,
            regions=region_plan("grid-clipself").boxes([0, 0, 1, 60 / 96]),
        )
        for i in range(count)
    ]


def test_asking__every_batch_is_full_but_the_last_whatever_the_cells():
    teacher = CropsConfig(model="scenes-s", weights="random:0").load("cpu")
    sizes, look = [], teacher.forward
    teacher.forward = lambda pictures: sizes.append(len(pictures)) or look(pictures)
    photos = grids(4)
    batcher = Batcher(Run.of(teacher), 16, StageTimer())
    done = [pair for photo in photos for pair in batcher.add(photo, teacher.inputs(photo))]
    done += batcher.finish()
    cells = [len(teacher.inputs(photo)) for photo in photos]
    assert len(set(cells)) > 1
    assert sizes == [16] * (sum(cells) // 16) + [sum(cells) % 16] * (sum(cells) % 16 > 0)
    assert [photo.key for photo, _ in done] == ["p0", "p1", "p2", "p3"]
    assert [len(target) for _, (target,) in done] == cells


def test_asking__smaller_pictures_come_in_larger_batches():
    teacher = CropsConfig(model="scenes-s", weights="random:0").load("cpu")
    sizes = []
    teacher.forward = lambda pictures: sizes.append(len(pictures)) or torch.zeros(len(pictures), 64)
    photos = [replace(photo, canvas=Canvas(192)) for photo in grids(3)]
    live_targets(teacher, photos, batch_size=2)
    assert sizes[0] == 8


def test_inputs__of_two_teachers_with_the_same_crops_are_prepared_once(monkeypatch):
    made = []
    crop = Canvas.crop
    monkeypatch.setattr(Canvas, "crop", lambda *args: made.append(args) or crop(*args))
    first, second, other = (
        CropsConfig(model="scenes-s", weights=f"random:{seed}", context=context).load("cpu")
        for seed, context in ((0, 1.0), (1, 1.0), (0, 1.5))
    )
    (photo,) = grids(1)
    crops = first.inputs(photo)
    assert second.inputs(photo) is crops and len(made) == len(crops)
    assert not np.array_equal(other.inputs(photo), crops)
    photo.forget()
    np.testing.assert_array_equal(first.inputs(photo), crops)
    assert len(made) == 3 * len(crops)


def test_a_photo_without_boxes__has_no_rows():
    nothing = Regions(np.zeros((0, 4), np.float32), np.zeros(2, np.int32))
    teacher = CropsConfig(model="scenes-s", weights="random:0").load("cpu")
    photos = [replace(photo, regions=nothing) if i == 1 else photo for i, photo in enumerate(grids(3))]
    live = live_targets(teacher, photos)
    assert [len(each) > 0 for each in live] == [True, False, True]
    arrays, _ = teacher.encode(photos[1], live[1])
    assert (arrays["x"].shape, arrays["views"].tolist()) == ((0, 64), [0])


def test_stored_views__a_larger_k_begins_with_the_smaller_ones():
    four, all_of_them = stored_views("a", 24, 4), stored_views("a", 24, 99)
    assert all_of_them[:4].tolist() == four.tolist()
    assert sorted(all_of_them.tolist()) == list(range(24))
    assert stored_views("b", 24, 4).tolist() != four.tolist() != stored_views("a", 24, 4, seed=1).tolist()


def test_stored_views__known_values():
    # Stores outlive releases: these may never change.
    assert stored_views("000000000139", 24, 4).tolist() == [10, 22, 21, 6]


def test_stored_views__every_view_equally_often():
    counts = np.bincount(
        np.concatenate([stored_views(f"{i:012d}", 24, 4) for i in range(3000)]), minlength=24
    )
    # Binomial(3000, 1/6): sd 20.4. The keys are fixed, so no flake.
    assert np.abs(counts - 500).max() < 4 * 20.4


def test_spec__every_setting_enters_it():
    base = CropsConfig(model="scenes-s", weights="random:0")
    others = [
        {"weights": "random:1"},
        {"model": "scenes-l"},
        {"views": 5},
        {"seed": 1},
        {"context": 1.5},
        {"codec": Rows(dtype="fp16")},
    ]
    specs = [base.spec(), *(replace(base, **other).spec() for other in others)]
    assert all(a != b for i, a in enumerate(specs) for b in specs[:i])


def test_proposals__crops_have_context_and_a_photo_may_have_none(tiny, tmp_path):
    folder = tmp_path / "photos" / "train2017"
    folder.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (120, 60), "red").save(folder / name)
    boxes = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "bbox": [x, 10, 20, 30]} for x in (0, 40, 100)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    config = replace(
        tiny,
        dataset="coco",
        data=str(folder.parent),
        split=None,
        limit=None,
        canvas=96,
        categories="scenes",
        regions="proposals",
        proposals=str(tmp_path / "boxes.json"),
        teachers=("crops-scenes-s", "scenes-s"),
    )
    request, _ = build_here(config)
    crops = request.columns()[2]
    assert crops.spec["target"]["crop"]["context"] == 1.5
    first, second = read_joined(request.columns(), "000000")
    for record, count in ((first, 3), (second, 0)):
        assert len(decode_npz(record.parts["regions"]["npz"])["boxes"]) == count
        assert len(decode_npz(record.parts["scenes-s"]["npz"])["count"]) == count
        arrays = decode_npz(record.parts["crops-scenes-s"]["npz"])
        assert (arrays["x"].shape, arrays["views"].tolist()) == ((count, 64), [0])
