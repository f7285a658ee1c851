import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from building import build_here

from densecli.core.errors import DenseCLIError
from densecli.models.categories import load_categories
from densecli.models.pooling import region_pool
from densecli.pipeline.batcher import live_targets
from densecli.pipeline.build_request import prepare
from densecli.pipeline.teachers import Photo, teacher_config
from densecli.pipeline.teachers.labels import LabelsConfig
from densecli.shards.codecs import codec_from_spec
from densecli.shards.geometry import Canvas
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz
from densecli.shards.regions import Regions

# A matrix product may differ in its last bits with the size of the batch; over tau = 0.01 that is up to this
# much of p. Only a build with the same settings is the same to the byte.
BATCH_NOISE = 1e-4


def blank_photo(size):
    whole = Regions(np.array([[0, 0, 1, 1]], np.float32), np.array([0, 1], np.int32))
    image = np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)
    return Photo(key="a", image=image, canvas=Canvas(size), regions=whole)


@pytest.mark.parametrize("shard_size", [1, 7, 64])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_stored_target__equals_the_live_teacher_for_every_region(tiny, photo_of, shard_size, batch_size):
    request, _ = build_here(replace(tiny, limit=9, shard_size=shard_size, batch_size=batch_size))
    columns = request.columns()
    teacher = request.targets[0][0].load("cpu")
    codec = codec_from_spec(columns[2].spec["codec"])
    assert codec == teacher.codec
    things = np.array(codec.things)
    seen = 0
    for shard in request.store.shard_names:
        bound = columns[2].receipt(shard).error["max_tv"] + BATCH_NOISE
        for record in read_joined(columns, shard):
            (live,) = live_targets(teacher, [photo_of(record, request.store.canvas)])
            arrays = decode_npz(record.parts["scenes-s"]["npz"])
            stored = codec.decode(arrays)
            others = np.where(stored[:, :-2] > 0, 0, live)
            rest = [others[:, side].sum(1) for side in (things, ~things)]
            assert np.abs(stored - np.column_stack([live - others, *rest])).sum(1).max() / 2 <= bound
            # The very category, wherever the noise cannot have swapped the first two.
            first, second = np.sort(live, axis=1)[:, :-3:-1].T
            sure = first - second > 2 * BATCH_NOISE
            best = stored[:, :-2].argmax(1)
            assert np.array_equal(best[sure], live.argmax(1)[sure])
            assert np.array_equal(arrays["thing"], things[best])
            seen += len(live)
    assert seen == 9 * 400


def test_live__is_the_softmax_over_all_categories_of_the_pooled_cosines(tiny, photo_of):
    request, _ = build_here(replace(tiny, limit=1))
    (record,) = read_joined(request.columns()[:2], "000000")
    teacher = request.targets[0][0].load("cpu")
    photo = photo_of(record, request.store.canvas)
    (live,) = live_targets(teacher, [photo])
    assert live.shape == (400, 20)

    with torch.no_grad():
        images = torch.from_numpy(photo.padded()[None]).permute(0, 3, 1, 2)
        dense = teacher.model.dense(teacher.model.normalize(images), mode="value")
        for n in (0, 57, 399):
            box = torch.from_numpy(photo.regions.boxes[n : n + 1])
            pooled = region_pool(dense, box, torch.zeros(1, dtype=torch.long))
            scores = (pooled @ teacher.text.T)[0].double() / 0.01
            expected = torch.exp(scores - scores.max())
            np.testing.assert_allclose(live[n], expected / expected.sum(), atol=1e-4)


def test_live__a_canvas_that_is_no_multiple_of_the_patch_maps_boxes_exactly_or_as_released():
    teachers = [
        LabelsConfig(name="scenes-s", weights="random:0", categories="scenes", resample=resample)
        for resample in (True, False)
    ]
    exact, released = (live_targets(teacher.load("cpu"), [blank_photo(100)])[0] for teacher in teachers)
    assert not np.allclose(exact, released)
    assert teachers[0].spec() != teachers[1].spec()


def test_live__nan_is_refused():
    teacher = LabelsConfig(name="scenes-s", weights="random:0", categories="scenes").load("cpu")
    teacher.text[0, 0] = float("nan")
    with pytest.raises(DenseCLIError, match="scenes-s returned NaN"):
        live_targets(teacher, [blank_photo(96)])


def test_text_embeddings__a_file_takes_the_place_of_the_text_tower(tmp_path):
    config = LabelsConfig(name="scenes-s", weights="random:0", categories="scenes")
    own = config.load("cpu").text
    np.save(tmp_path / "text.npy", 3 * own.numpy())
    given = replace(config, text_embeddings=str(tmp_path / "text.npy"))
    torch.testing.assert_close(given.load("cpu").text, own)
    assert given.spec()["target"]["text"].keys() == {"sha256"}

    np.save(tmp_path / "text.npy", own.numpy()[:, :-1])
    with pytest.raises(DenseCLIError, match="63"):
        given.load("cpu")


def other_settings(tmp_path):
    (tmp_path / "two.json").write_text('[{"name": "boat", "thing": true}, {"name": "sky", "thing": false}]')
    known = load_categories("scenes")
    flipped = [{"name": n, "thing": not t} for n, t in zip(known.names, known.thing.tolist(), strict=True)]
    (tmp_path / "flipped.json").write_text(json.dumps(flipped))
    np.save(tmp_path / "text.npy", np.eye(20, 64, dtype=np.float32))
    return [
        {"weights": "random:1"},
        {"name": "scenes-l"},
        {"tau": 0.02},
        {"resample": False},
        {"k": 4},
        {"tail_mass": 0.01},
        {"dtype": "fp32"},
        {"categories": str(tmp_path / "flipped.json")},
        {"categories": str(tmp_path / "two.json")},
        {"templates": "imagenet"},
        {"text_embeddings": str(tmp_path / "text.npy")},
    ]


def test_spec__every_setting_enters_it(tmp_path):
    base = LabelsConfig(name="scenes-s", weights="random:0", categories="scenes")
    specs = [base.spec(), *(replace(base, **other).spec() for other in other_settings(tmp_path))]
    assert base.spec() == specs[0]
    assert all(a != b for i, a in enumerate(specs) for b in specs[:i])


def test_column__random_weights_are_recorded(tiny):
    request, _ = build_here(tiny)
    column = request.store.find("targets", "scenes-s")
    assert column.spec["weights"] == "random:0"
    assert column.info["random_weights"] is True
    assert column.spec["regions"] == request.columns()[1].key


def test_coco128__six_real_photos(tiny, shared_data):
    data = str(shared_data / "coco128")
    config = replace(tiny, dataset="coco", data=data, split="train2017", canvas=192, categories="scenes")
    request, reports = build_here(config)
    assert sum(report.samples for report in reports) == 6
    records = [r for shard in request.store.shard_names for r in read_joined(request.columns(), shard)]
    assert [r.key for r in records] == [item.key for item in prepare(config)[1].items]
    assert all(decode_npz(r.parts["scenes-s"]["npz"])["count"].shape == (400,) for r in records)


def test_resample__by_a_setting(tiny):
    inputs = {
        resample: [
            teacher_config(name, replace(tiny, resample=resample)).spec()["preprocessing"]["input"]
            for name in ("scenes-s", "features-scenes-s")
        ]
        for resample in (True, False)
    }
    assert inputs == {True: ["nearest multiple of the patch"] * 2, False: ["canvas"] * 2}
