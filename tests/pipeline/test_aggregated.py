"""The aggregated column: R-SC's eq. 7, tokens of a photo averaged over other photos around it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import build_here

from densecli.pipeline.batcher import live_targets
from densecli.pipeline.teachers import Photo, teacher_config
from densecli.pipeline.teachers.aggregated import AggregatedTeacher
from densecli.pipeline.verify import VerifyConfig, verify
from densecli.shards.geometry import Canvas
from densecli.shards.joined import read_joined

N = 3


@pytest.fixture
def config(tiny):
    """Four photos in shards of three and one."""
    weights = {"scenes-s": "random:0"}
    return replace(
        tiny, teachers=("aggregated-scenes-s",), weights=weights, limit=4, shard_size=3, contexts=N
    )


def photos_of(request, shard):
    records = read_joined(request.columns()[:2], shard)
    return [
        Photo(
            key=record.key,
            image=record.image(),
            canvas=Canvas(request.store.canvas),
            regions=record.regions(),
            shard=records,
        )
        for record in records
    ]


def test_target__is_the_mean_of_the_submaps(config):
    """Eq. 7 from its definition: the photo in N others, one at a time, and the mean of its own tokens."""
    request, _ = build_here(config)
    photo, *_ = photos_of(request, "000000")
    teacher = teacher_config("aggregated-scenes-s", config).load("cpu")
    assert isinstance(teacher, AggregatedTeacher)
    composed, patch = teacher.inputs(photo), teacher.model.patch_size
    side = composed.shape[1]
    small = next(
        size for size in range(patch, side, patch) if size // patch == (side // patch) // 2
    )  # half of the tokens
    submaps, places = [], []
    for canvas in composed:
        dense = teacher.model.dense(teacher.model.normalize(torch.from_numpy(canvas).permute(2, 0, 1)[None]))
        y, x = where(canvas, composed_of(photo, small), patch)
        places.append((y, x))
        tokens = F.normalize(dense[0], dim=0)[:, y : y + small // patch, x : x + small // patch]
        submaps.append(tokens)
    assert len(set(places)) > 1
    expected = F.normalize(torch.stack(submaps).mean(dim=0), dim=0).permute(1, 2, 0)
    np.testing.assert_allclose(live_targets(teacher, [photo])[0], expected.detach().numpy(), atol=1e-5)


def composed_of(photo, side):
    from PIL import Image

    return np.asarray(Image.fromarray(photo.padded()).resize((side, side), Image.Resampling.BICUBIC))


def where(canvas, small, patch):
    """The place of the photo in a canvas, in tokens; it must be at one place of the token grid."""
    size = len(small)
    (place,) = [
        (y, x)
        for y in range((len(canvas) - size) // patch + 1)
        for x in range((len(canvas) - size) // patch + 1)
        if (canvas[y * patch : y * patch + size, x * patch : x * patch + size] == small).all()
    ]
    return place


def test_contexts__are_other_photos_each_once_and_the_photo_itself_where_it_is_alone(config):
    request, _ = build_here(config)
    teacher = teacher_config("aggregated-scenes-s", replace(config, contexts=4)).load("cpu")
    for row, photo in enumerate(photos_of(request, "000000")):
        others = [other for other, _, _ in teacher._places(photo)]
        assert row not in others
        assert len(set(others[:2])) == len(set(others[2:])) == 2
    (alone,) = photos_of(request, "000001")
    assert {other for other, _, _ in teacher._places(alone)} == {None}
    assert np.isfinite(live_targets(teacher, [alone])[0]).all()


def test_stored__equals_the_live_teacher_and_depends_on_the_shard_alone(config):
    request, _ = build_here(replace(config, codec="fp32", batch_size=1))
    column = request.columns()[2]
    assert column.target_kind == "aggregated" and column.regions_key is None
    found = verify(VerifyConfig(store=config.store, samples=4))
    assert found["verified"] and found["columns"][0]["samples"] == 4
    teacher = request.targets[0][0].load("cpu")
    for shard in request.store.shard_names:
        photos = photos_of(request, shard)
        for photo, live in zip(photos, live_targets(teacher, photos), strict=True):
            (record,) = (r for r in read_joined([column], shard) if r.key == photo.key)
            stored = record.arrays(column.part)
            kept = column.codec.decode(stored)
            assert stored["grid"].tolist() == [live.shape[0], live.shape[1]]
            flat = live.reshape(len(kept), -1)
            assert (
                np.abs(kept @ kept.T - flat @ flat.T).max() <= column.receipt(shard).error["max_abs"] + 1e-5
            )


def test_spec__names_what_a_target_depends_on(config):
    keys = [
        teacher_config("aggregated-scenes-s", replace(config, **change)).spec()["target"]
        for change in ({}, {"contexts": 5}, {"seed": 1})
    ]
    assert keys[0] != keys[1] != keys[2] != keys[0]


def test_cost__is_a_pass_for_each_context(config):
    request, _ = build_here(config)
    photo, *_ = photos_of(request, "000000")
    costs = [teacher_config("aggregated-scenes-s", replace(config, contexts=n)).cost(photo) for n in (1, N)]
    assert costs[1].once == N * costs[0].once == costs[1].visit
    stored = request.columns()[2]
    (record, *_) = read_joined([stored], "000000")
    arrays = record.arrays(stored.part)
    assert {name: (a.shape, a.dtype) for name, a in costs[1].stored.items()} == {
        name: (a.shape, a.dtype) for name, a in arrays.items()
    }
