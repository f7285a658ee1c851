from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from building import build_here
from registries import put
from torchvision.ops import roi_align

from densecli.models.vfm_architecture import VFMArchitecture
from densecli.models.vfms import VFMS
from densecli.pipeline.batcher import live_targets
from densecli.pipeline.teachers.features import FeaturesConfig
from densecli.pipeline.teachers.gram import GramConfig, SelfConfig
from densecli.shards.codecs import Features, LowRank, codec_from_spec
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz

TEACHERS = ("self-scenes-s", "dinov2-vits14")
WEIGHTS = {"scenes-s": "random:0", "dinov2-vits14": "random:0"}


@pytest.fixture
def tokens(tiny):
    return replace(tiny, teachers=TEACHERS, weights=WEIGHTS, limit=3, rank=16)


@pytest.mark.parametrize(("shard_size", "batch_size"), [(1, 1), (2, 16), (3, 2)])
def test_stored_gram__equals_the_live_teachers(tokens, photo_of, shard_size, batch_size):
    request, _ = build_here(replace(tokens, shard_size=shard_size, batch_size=batch_size))
    columns = request.columns()
    assert [column.spec["target"]["name"] for column in columns[2:]] == ["self", "gram"]
    for column, (config, _) in zip(columns[2:], request.targets, strict=True):
        teacher, codec = config.load("cpu"), codec_from_spec(column.spec["codec"])
        for shard in request.store.shard_names:
            receipt = column.receipt(shard)
            for record in read_joined(columns, shard):
                (live,) = live_targets(teacher, [photo_of(record, request.store.canvas)])
                arrays = decode_npz(record.parts[column.part]["npz"])
                assert arrays["grid"].tolist() == [8, 8] == list(live.shape[:2])
                assert (arrays["x"].shape, arrays["x"].dtype) == ((64, 16), np.int8)
                x, f = live.reshape(64, -1).astype(np.float64), codec.decode(arrays).astype(np.float64)
                np.testing.assert_allclose(np.diag(x @ x.T), 1, atol=1e-5)
                error = f @ f.T - x @ x.T
                np.testing.assert_allclose(
                    arrays["bound"], [np.linalg.norm(error, axis=1).mean(), np.abs(error).max()], atol=1e-5
                )
                assert np.abs(error).max() <= receipt.error["max_abs"] + 1e-5
                assert np.sqrt((error**2).mean()) <= receipt.error["max_rmse"] + 1e-5


def test_stored_features__are_the_live_map(tiny, photo_of):
    request, _ = build_here(replace(tiny, teachers=("features-scenes-s",)))
    column = request.columns()[2]
    teacher, codec = request.targets[0][0].load("cpu"), codec_from_spec(column.spec["codec"])
    for shard in request.store.shard_names:
        bound = column.receipt(shard).error["max_norm"] + 1e-5
        for record in read_joined(request.columns(), shard):
            (live,) = live_targets(teacher, [photo_of(record, request.store.canvas)])
            arrays = decode_npz(record.parts[column.part]["npz"])
            off = codec.decode(arrays).reshape(live.shape) - live
            assert 0 < np.linalg.norm(off, axis=2).max() <= bound < 1
            assert arrays["basis"].shape == (16, 64)


def test_region__the_gram_of_the_pooled_factors_is_that_of_the_pooled_tokens(tokens, photo_of):
    """RoIAlign takes means: no entry is off by more than the worst of the whole map."""
    request, _ = build_here(tokens)
    column = request.columns()[2]
    teacher, codec = request.targets[0][0].load("cpu"), codec_from_spec(column.spec["codec"])
    for record in read_joined(request.columns(), "000000"):
        photo = photo_of(record, request.store.canvas)
        (live,) = live_targets(teacher, [photo])
        factors = codec.decode(decode_npz(record.parts[column.part]["npz"])).reshape(8, 8, -1)
        boxes = torch.from_numpy(photo.regions.boxes[::7].copy()) * 8

        def grams(tokens, boxes=boxes):
            tokens = torch.from_numpy(tokens).double().permute(2, 0, 1)[None]
            pooled = roi_align(tokens, [boxes.double()], (5, 5), aligned=True).flatten(2)
            return (pooled.transpose(1, 2) @ pooled).numpy()

        off = np.abs(grams(factors) - grams(live)).max()
        assert 0 < off <= column.receipt("000000").error["max_abs"] + 1e-5 < 0.2


def test_region__a_lossless_codec_keeps_the_gram(tokens, photo_of):
    request, _ = build_here(
        replace(tokens, teachers=TEACHERS[:1], codec="fp32", rank=64, weights={"scenes-s": "random:0"})
    )
    assert request.columns()[2].receipt("000000").error["max_abs"] < 1e-5


def test_gram_rmse__each_photo_has_the_rank_it_needs(tokens):
    request, _ = build_here(replace(tokens, gram_rmse=0.006))
    for column in request.columns()[2:]:
        assert column.spec["codec"] == {"name": "lowrank", "rank": None, "rmse": 0.006, "dtype": "int8"}
        assert column.receipt("000000").error["max_rmse"] <= 0.006
        ranks = [
            decode_npz(record.parts[column.part]["npz"])["x"].shape[1]
            for record in read_joined(request.columns(), "000000")
        ]
        assert all(rank % 8 == 0 for rank in ranks)


def test_column__holds_for_the_boxes_of_any_plan(tokens):
    first, _ = build_here(tokens)
    second, reports = build_here(replace(tokens, regions="grid-clipself"))
    assert [c.id for c in second.columns()[2:]] == [c.id for c in first.columns()[2:]]
    assert second.columns()[1].id != first.columns()[1].id
    assert not any("teacher" in report.seconds for report in reports)


def test_all_kinds__one_after_the_other_touch_no_file_and_share_the_decode(tiny, files_of):
    teachers = ("scenes-s", "crops-scenes-s", *TEACHERS)
    limited = replace(tiny, limit=3, views=1)
    for count in range(1, len(teachers) + 1):
        names = teachers[:count]
        weights = {name: w for name, w in WEIGHTS.items() if name in (*names, "scenes-s")}
        before = files_of(Path(tiny.store))
        build_here(replace(limited, teachers=names, weights=weights))
        after = files_of(Path(tiny.store))
        assert {name: after[name] for name in before} == before
        assert len(after) > len(before)
    one_by_one = files_of(Path(tiny.store))
    together, _ = build_here(
        replace(
            limited, teachers=teachers, weights=WEIGHTS, store=str(Path(tiny.store).with_name("together"))
        )
    )
    at_once = files_of(Path(together.store.root))
    tars = [name for name in one_by_one if name.endswith(".tar")]
    # Photos and four teachers: the boxes are computed.
    assert len(tars) == 5
    assert all(at_once[name][2] == one_by_one[name][2] for name in tars)
    decode = [column.receipt("000000").seconds["decode"] for column in together.columns()[2:]]
    assert decode == [decode[0]] * 4


def test_spec__every_setting_enters_it():
    gram = GramConfig(name="dinov2-vits14", weights="random:0")
    self_ = SelfConfig(model="scenes-s", weights="random:0")
    codecs = [{"codec": LowRank(rank=32)}, {"codec": LowRank(rank=None, rmse=0.004)}]
    grams = [{}, {"weights": "random:1"}, {"name": "dinov2-vits14-reg"}, {"student_patch": 32}, *codecs]
    selves = [{}, {"weights": "random:1"}, {"model": "scenes-l"}, {"mode": "vanilla"}, *codecs]
    features = FeaturesConfig(model="scenes-s", weights="random:0")
    kept = [
        {},
        {"weights": "random:1"},
        {"model": "scenes-l"},
        {"resample": False},
        {"codec": Features(rank=32)},
    ]
    configs = ((gram, grams), (self_, selves), (features, kept))
    specs = [replace(config, **change).spec() for config, changes in configs for change in changes]
    assert all(a != b for i, a in enumerate(specs) for b in specs[:i])


def test_real_dinov2__rank_64_keeps_the_cosines_of_real_photos(tiny, shared_data):
    config = replace(
        tiny,
        dataset="coco",
        data=str(shared_data / "coco128"),
        split="train2017",
        limit=4,
        canvas=512,
        teachers=("dinov2-vits14",),
        weights={"dinov2-vits14": str(shared_data / "weights" / "dinov2_vits14_fp16.safetensors")},
    )
    request, _ = build_here(config)
    column = request.columns()[2]
    assert column.receipt("000000").error["rmse"] <= 0.004
    for record in read_joined(request.columns(), "000000"):
        arrays = decode_npz(record.parts["dinov2-vits14"]["npz"])
        assert arrays["grid"].tolist() == [32, 32]
        assert (arrays["x"].nbytes + arrays["scale"].nbytes) / 1024 == 66


@pytest.fixture(autouse=True)
def small_vit(request, monkeypatch):
    """A ViT-S of random weights says nothing that a ViT-Ti does not; but for real weights."""
    if "shared_data" not in request.fixturenames:
        small = VFMArchitecture(name="dinov2-vits14", timm="vit_tiny_patch16_224", patch=16)
        put(monkeypatch, VFMS, "dinov2-vits14", small)
