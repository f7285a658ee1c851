"""What a plan says against what the build then takes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from building import build_here
from PIL import Image
from tars import jpg, write_tar

from densecli.core.errors import DenseCLIError
from densecli.core.tables import size as as_size
from densecli.models.flops import dense_forward, image_forward
from densecli.pipeline.plan import PlanConfig, plan
from densecli.pipeline.plan_report import report
from densecli.pipeline.sources import tars as headers

TEACHERS = ("scenes-s", "crops-scenes-s", "self-scenes-s", "features-scenes-s", "refiner-scenes-s")
RANDOM = {"scenes-s": "random:0", "refiner-scenes-s": "random:1"}


def du(root):
    """Bytes of every file."""
    return sum(path.stat().st_size for path in Path(root).rglob("*") if path.is_file())


@pytest.mark.parametrize("regions", ["grid-paper", "grid-clipself"])
def test_bytes__of_scenes_are_those_of_the_store(tiny, regions):
    config = replace(
        tiny, limit=12, shard_size=5, teachers=TEACHERS, weights=RANDOM, views=1, rank=8, regions=regions
    )
    planned = plan(PlanConfig(epochs=6, build=config))
    assert not Path(config.store).exists()
    request, _ = build_here(config)
    assert planned["bytes"] == pytest.approx(du(config.store), rel=0.02)
    assert planned["uncertainty"] == 0
    for column, built in zip(planned["columns"], request.columns(), strict=True):
        assert (column["kind"], column["name"]) == (built.kind, built.name)
        assert column["bytes"] == pytest.approx(du(built.url), rel=0.02)


def test_bytes__of_photos_are_those_of_the_store(shared_data, tiny):
    config = replace(
        tiny,
        dataset="coco",
        data=str(shared_data / "coco128"),
        split="train2017",
        limit=None,
        canvas=64,
        shard_size=50,
        teachers=("scenes-s", "self-scenes-s"),
        categories="scenes",
    )
    planned = plan(PlanConfig(epochs=6, build=config))
    build_here(config)
    assert planned["bytes"] == pytest.approx(du(config.store), rel=0.02)


def test_bytes__of_a_sample_stand_for_all(tiny):
    config = replace(tiny, limit=90, shard_size=32, teachers=(), weights={})
    planned = plan(PlanConfig(epochs=6, build=config, samples=40))
    build_here(config)
    assert planned["sampled"] == 40
    assert 0 < planned["uncertainty"] < 0.1
    assert planned["bytes"] == pytest.approx(du(config.store), rel=2 * planned["uncertainty"] + 0.02)


def test_bytes__of_more_photos_like_these(tiny):
    config = replace(tiny, limit=32, shard_size=32, teachers=("scenes-s",))
    some, more = (plan(PlanConfig(epochs=6, build=config, photos=n)) for n in (32, 3200))
    assert more["photos"] == 3200
    assert more["bytes"] == pytest.approx(100 * some["bytes"], rel=0.02)


def test_unreadable_photos_are_left_out_of_the_estimate(tiny, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        if i % 3:
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (60, 90, 3), np.uint8)).save(
                folder / f"{i:02d}.jpg"
            )
        else:
            (folder / f"{i:02d}.jpg").write_bytes(b"no photo")
    config = replace(
        tiny, dataset="folder", data=str(folder), split=None, limit=None, teachers=(), weights={}, canvas=64
    )
    planned = plan(PlanConfig(epochs=6, build=config))
    build_here(config)
    assert planned["skipped"] == pytest.approx(1 / 3)
    assert planned["bytes"] == pytest.approx(du(config.store), rel=0.02)
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DenseCLIError, match="None of the 12 photos"):
        plan(PlanConfig(epochs=6, build=replace(config, store=str(tmp_path / "other"))))


def test_work__of_labels_pays_after_one_epoch_and_that_of_crops_after_as_many_views(tiny):
    planned = plan(PlanConfig(build=replace(tiny, teachers=TEACHERS[:1]), tflops=1e-6, epochs=6))
    (labels,) = planned["teachers"]
    assert labels["tflop"] == pytest.approx(6 * dense_forward("scenes-s", 96).flops / 1e12)
    assert labels["gpu_hours"] == pytest.approx(labels["tflop"] / 1e-6 / 3600)
    assert planned["break_even"] == {"epochs": 1, "trainings": pytest.approx(1 / 6)}

    # Every view: the 400 cells of 25 views, of which a live teacher sees 16 an epoch.
    planned = plan(PlanConfig(epochs=6, build=replace(tiny, teachers=TEACHERS[1:2], views=25)))
    (crops,) = planned["teachers"]
    assert crops["tflop"] == pytest.approx(6 * 400 * image_forward("scenes-s").flops / 1e12)
    assert planned["break_even"]["epochs"] == pytest.approx(25)


def test_training__pays_for_the_teachers_it_reads_alone_and_for_as_long_as_it_is(tiny):
    build = replace(tiny, teachers=TEACHERS[:3], weights=RANDOM, views=25)
    every, one = (
        plan(PlanConfig(epochs=6, build=build, reads=reads)) for reads in (None, frozenset(["labels"]))
    )
    assert [t["epoch_tflop"] > 0 for t in every["teachers"]] == [True, True, True]
    assert [t["epoch_tflop"] > 0 for t in one["teachers"]] == [True, False, False]
    assert [t["tflop"] for t in one["teachers"]] == [t["tflop"] for t in every["teachers"]]
    assert one["break_even"]["epochs"] > every["break_even"]["epochs"] > 1
    assert report(one).count("live, an epoch") == 1
    # However small, work is not shown as none.
    for row in report(one).split("GPU hours at")[1].splitlines()[2:5]:
        assert all(float(figure) > 0 for figure in row.split()[-2:])
    assert plan(PlanConfig(epochs=6, build=build, seen=12))["epochs"] == 2
    small, large = (
        plan(PlanConfig(epochs=6, build=build, student=student, image_size=side))["student"]["epoch_tflop"]
        for student, side in (("scenes-s", None), ("scenes-vfm", 192))
    )
    assert large > 2 * small > 0


def test_bytes__of_tars_count_what_is_kept_of_their_listing(tiny, tmp_path):
    for t in range(3):
        write_tar(tmp_path / f"{t}.tar", {f"{i}.jpg": jpg(90, 60, seed=i) for i in range(2)})
    config = replace(
        tiny, dataset="webdataset", data=str(tmp_path), split=None, limit=None, teachers=(), weights={},
        canvas=48,
    )  # fmt: skip
    planned = plan(PlanConfig(epochs=6, build=config))
    assert not Path(config.store).exists()
    build_here(config)
    assert planned["index_bytes"] == pytest.approx(du(Path(config.store) / "index"), abs=100)
    assert planned["bytes"] == pytest.approx(du(config.store), rel=0.005)
    assert "listing" in report(planned)


def test_parts__some_are_listed_and_stand_for_all(tiny, tmp_path, monkeypatch):
    scanned = []
    scan = headers.scan_tar

    def counted(url, *how, **also):
        scanned.append(Path(url).name)
        return scan(url, *how, **also)

    monkeypatch.setattr(headers, "scan_tar", counted)
    for t in range(7):
        write_tar(
            tmp_path / "photos" / f"{t}.tar", {f"{i}.jpg": jpg(90, 60, seed=7 * t + i) for i in range(4)}
        )
    config = replace(
        tiny, dataset="webdataset", data=str(tmp_path / "photos"), split=None, limit=None, teachers=(),
        weights={}, canvas=48, tars_per_part=1,
    )  # fmt: skip
    planned = plan(PlanConfig(epochs=6, build=config))
    assert sorted(scanned) == ["0.tar", "3.tar", "6.tar"]
    assert (planned["parts"], planned["parts_listed"]) == (7, 3)
    assert planned["photos"] == pytest.approx(28, abs=1)
    assert "Listed 3 of 7 parts" in report(planned)
    assert plan(PlanConfig(epochs=6, build=replace(config, limit=10)))["photos"] == 10
    whole = plan(PlanConfig(epochs=6, build=replace(config, tars_per_part=None)))
    assert planned["bytes"] == pytest.approx(whole["bytes"], rel=0.1)
    scanned.clear()
    monkeypatch.setenv("DENSECLI_CACHE", str(tmp_path / "other"))
    assert "parts" not in plan(PlanConfig(epochs=6, build=replace(config, tars_per_part=3)))
    assert len(scanned) == 7


@pytest.mark.parametrize(("precision", "slower"), [("auto", 1), ("bf16", 1), ("tf32", 2), ("fp32", 16)])
def test_hours__are_those_of_the_teachers_precision(tiny, precision, slower):
    build = replace(tiny, teachers=TEACHERS[:1], teacher_precision=precision)
    (labels,) = plan(PlanConfig(build=build, tflops=1e-6, epochs=6, samples=2))["teachers"]
    assert labels["precision"] == {"auto": "fp16"}.get(precision, precision)
    assert labels["gpu_hours"] == pytest.approx(slower * labels["tflop"] / 1e-6 / 3600)


def test_weights__are_needed_to_calibrate_alone(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    config = replace(tiny, teachers=("vitb16",), weights={})
    planned = plan(PlanConfig(epochs=6, build=config))
    assert [teacher["name"] for teacher in planned["teachers"]] == ["vitb16"]
    assert "vitb16 in fp16, once" in report(planned)
    with pytest.raises(DenseCLIError, match="no weights for vitb16"):
        plan(PlanConfig(epochs=6, build=config, calibrate=True))


@pytest.fixture
def many(tmp_path) -> dict:
    """Settings of labels over 60 categories, of which a box keeps 20 if its teacher is sure."""
    names = tmp_path / "categories.json"
    names.write_text(json.dumps([{"name": f"category {i}", "thing": i % 2 == 0} for i in range(60)]))
    texts = np.random.default_rng(0).normal(size=(60, 64)).astype(np.float32)
    np.save(tmp_path / "texts.npy", texts / np.linalg.norm(texts, axis=1, keepdims=True))
    return {"categories": str(names), "text_embeddings": str(tmp_path / "texts.npy")}


def test_bytes__of_labels_are_measured_where_the_weights_are(tiny, many):
    unsure = replace(tiny, limit=12, **many, tau=1.0)
    planned = plan(PlanConfig(epochs=6, build=unsure, measured=4))
    build_here(unsure)
    assert "most_bytes" not in planned and "scenes-s: measured, " in report(planned)
    assert planned["bytes"] == pytest.approx(du(unsure.store), rel=2 * planned["uncertainty"] + 0.02)
    least, most = _range(plan(PlanConfig(epochs=6, build=unsure, measured=0)))
    assert most == pytest.approx(du(unsure.store), rel=0.02) and most > 1.5 * least
    assert planned["measured_bytes"]["scenes-s"] > 2


def test_bytes__of_labels_are_a_range_where_no_weights_are(tiny, many, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    config = replace(tiny, teachers=("vitb16",), weights={}, **many)
    planned = plan(PlanConfig(epochs=6, build=config))
    least, most = _range(planned)
    labels = planned["columns"][2]
    assert most - least == labels["most_bytes"] - labels["bytes"] > labels["bytes"]
    assert f"{as_size(least)} to {as_size(most)}" in report(planned)
    assert "vitb16: a range, " in report(planned)


def test_bytes__of_labels_that_keep_all_categories_are_no_range(tiny):
    planned = plan(PlanConfig(epochs=6, build=tiny, measured=0))
    assert "most_bytes" not in planned and not planned["measured_bytes"]


def _range(planned: dict) -> tuple[int, int]:
    return planned["bytes"], planned["most_bytes"]


def test_calibrate__measures_the_teachers_and_the_rank_they_need(tiny):
    config = replace(tiny, teachers=("self-scenes-s",), gram_rmse=0.05)
    most = plan(PlanConfig(epochs=6, build=config))
    planned = plan(PlanConfig(epochs=6, build=config, calibrate=True))
    build_here(config)
    assert planned["measured"] and planned["teachers"][0]["gpu_hours"] > 0
    assert planned["bytes"] == pytest.approx(du(config.store), rel=0.02)
    assert most["bytes"] > 1.1 * planned["bytes"]
    assert planned["cpu_hours"] > 0 and planned["student"]["epoch_gpu_hours"] > 0
