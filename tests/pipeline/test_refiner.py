"""The refined column: what the live Refiner says, kept box by box."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from building import build_here

from densecli.core.errors import DenseCLIError
from densecli.models.refiner_checkpoints import load_refiner
from densecli.pipeline.batcher import live_targets
from densecli.pipeline.teachers import teacher_config, weights_names
from densecli.pipeline.teachers.refiner import RefinedConfig
from densecli.shards.codecs import LowRank, codec_from_spec
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz
from densecli.shards.regions import Regions, stored_views

SIDE = 4
WEIGHTS = {"scenes-s": "random:0", "refiner-scenes-s": "random:1"}


@pytest.fixture
def refined(tiny):
    return replace(tiny, teachers=("refiner-scenes-s",), weights=WEIGHTS, views=2, side=SIDE, limit=3)


@pytest.mark.parametrize(
    "codec", [{}, {"rank": 8}, {"gram_rmse": 0.004}, {"codec": "fp32"}], ids=["int8", "8", "rmse", "fp32"]
)
def test_stored_target__has_the_live_teachers_gram_matrices(refined, photo_of, codec):
    request, _ = build_here(replace(refined, **codec, shard_size=2, batch_size=2))
    columns = request.columns()
    assert columns[2].spec["regions"] == columns[1].key
    teacher = request.targets[0][0].load("cpu")
    lowrank = codec_from_spec(columns[2].spec["codec"])
    for shard in request.store.shard_names:
        error, rmses = columns[2].receipt(shard).error, []
        for record in read_joined(columns, shard):
            (live,) = live_targets(teacher, [photo_of(record, request.store.canvas)])
            arrays = decode_npz(record.parts["refiner-scenes-s"]["npz"])
            factors = lowrank.decode(arrays).reshape(len(live), SIDE**2, -1)
            exact, kept = live @ live.transpose(0, 2, 1), factors @ factors.transpose(0, 2, 1)
            off = np.abs(exact - kept)
            assert off.max() <= error["max_abs"] + 1e-5
            rmses.append(np.sqrt((off**2).mean(axis=(1, 2))).mean())
        assert np.mean(rmses) == pytest.approx(error["rmse"], abs=1e-5)
        assert error["rmse"] < (0.1 if "rank" in codec else 0.005)
        assert error["rmse"] < 1e-5 or "codec" not in codec


@pytest.mark.parametrize("model", ["scenes-s", "scenes-vfm"])
def test_live__is_the_refiner_on_the_cells_of_the_stored_views(refined, photo_of, model):
    weights = {model: "random:0", f"refiner-{model}": "random:1"}
    request, _ = build_here(replace(refined, limit=1, teachers=(f"refiner-{model}",), weights=weights))
    assert request.targets[0][1]["architecture"] == model
    (record,) = read_joined(request.columns()[:2], "000000")
    photo = photo_of(record, request.store.canvas)
    teacher = request.targets[0][0].load("cpu")
    (live,) = live_targets(teacher, [photo])
    views = stored_views(photo.key, photo.regions.n_views, 2)
    boxes = np.concatenate([photo.regions.boxes[photo.regions.view(view)] for view in views])
    canvas = torch.from_numpy(photo.padded()).permute(2, 0, 1)[None]
    model = teacher.model
    for box, tokens in zip(boxes, live, strict=True):
        with torch.inference_mode():
            alone = model(model.encoder.prepare(canvas), torch.from_numpy(box)[None], torch.zeros(1), SIDE)
        np.testing.assert_allclose(tokens, alone[0], atol=1e-5)


def test_a_photo_without_boxes__has_no_rows(refined, photo_of):
    request, _ = build_here(replace(refined, limit=2))
    records = read_joined(request.columns()[:2], "000000")
    nothing = Regions(np.zeros((0, 4), np.float32), np.zeros(2, np.int32))
    photos = [photo_of(record, request.store.canvas) for record in records]
    teacher = request.targets[0][0].load("cpu")
    live = live_targets(teacher, [photos[0], replace(photos[1], regions=nothing)])
    arrays, errors = teacher.encode(replace(photos[1], regions=nothing), live[1])
    assert arrays["x"].shape == (0, SIDE**2) and arrays["scale"].shape == (0,)
    assert arrays["views"].tolist() == [0] and set(errors.values()) == {0.0}


def test_spec__every_setting_enters_it():
    base = RefinedConfig(model="scenes-s", weights="random:0", refiner="random:0")
    changes = (
        {"model": "scenes-l"},
        {"weights": "random:1"},
        {"refiner": "random:1"},
        {"views": 3},
        {"seed": 1},
        {"side": 5},
        {"codec": LowRank(rank=8)},
    )
    specs = [base.spec(), *(replace(base, **change).spec() for change in changes)]
    assert all(a != b for i, a in enumerate(specs) for b in specs[:i])


def test_name__its_weights_and_those_of_its_model(refined, tmp_path, monkeypatch):
    config = teacher_config("refiner-scenes-s", refined)
    assert (config.name, config.spec()["target"]["name"]) == ("refiner-scenes-s", "refined")
    assert (config.weights, config.refiner, config.info()["random_weights"]) == ("random:0", "random:1", True)
    assert weights_names("refiner-scenes-s") == {"weights": "scenes-s", "refiner": "refiner-scenes-s"}
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    with pytest.raises(DenseCLIError, match="no weights for refiner-vitb16: no refiner-vitb16") as caught:
        teacher_config("refiner-vitb16", replace(refined, weights={"vitb16": "random:0"}))
    assert "densecli train-refiner --student eva02-b16" in caught.value.commands[0]
    monkeypatch.chdir(tmp_path)
    trained = tmp_path / "runs" / "refiner-eva02-b16-noise-512" / "export" / "refiner.safetensors"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"weights")
    named = {"weights": {"vitb16": "random:0"}, "store": "stores/noise-512"}
    assert teacher_config("refiner-vitb16", replace(refined, **named)).refiner == str(trained)
    (tmp_path / "refiner-eva02-b16.safetensors").write_bytes(b"weights")
    found = teacher_config("refiner-vitb16", replace(refined, weights={"vitb16": "random:0"}))
    assert found.refiner == str(tmp_path / "refiner-eva02-b16.safetensors")


def test_map__is_the_refiner_on_the_whole_photo(refined, photo_of):
    config = replace(refined, teachers=("refined-map-scenes-s",), codec="fp32", limit=2)
    request, _ = build_here(config)
    column = request.columns()[2]
    assert column.target_kind == "refined-map" and column.regions_key is None
    teacher = request.targets[0][0].load("cpu")
    refiner = load_refiner("scenes-s", "random:0", "random:1")
    for record in read_joined(request.columns(), "000000"):
        photo = photo_of(record, request.store.canvas)
        (live,) = live_targets(teacher, [photo])
        canvas = torch.from_numpy(photo.padded()).permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = refiner.dense(refiner.encoder.prepare(canvas))[0].permute(1, 2, 0)
        np.testing.assert_allclose(live, expected.numpy(), atol=1e-5)
        stored = decode_npz(record.parts[column.part]["npz"])
        assert stored["grid"].tolist() == list(live.shape[:2])
        cost = request.targets[0][0].cost(photo)
        assert {name: array.shape for name, array in cost.stored.items()} == {
            name: array.shape for name, array in stored.items()
        }
    assert weights_names("refined-map-scenes-s") == weights_names("refiner-scenes-s")
