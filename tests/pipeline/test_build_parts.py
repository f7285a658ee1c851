"""Stores of parts: groups of tars listed and built one after another, and read as one store."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from building import build_missing, without_ray
from command_line import passed
from tars import jpg, write_tar

from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry
from densecli.core.passed_over import PassedOver
from densecli.pipeline import build_parts as parts
from densecli.pipeline import cluster
from densecli.pipeline.build_parts import build_parts, in_parts
from densecli.pipeline.build_request import prepare, shard_sizes
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.manifests import publish_manifests
from densecli.pipeline.sources import open_source
from densecli.pipeline.sources import tars as headers
from densecli.pipeline.summary import describe
from densecli.scenes.coco import write_coco
from densecli.shards.lanes import Lanes
from densecli.shards.parted_store import PartedStore, open_store, part_url, read_parts


@pytest.fixture
def config(tiny, tmp_path) -> BuildConfig:
    """Five tars of two photos each, two tars to a part."""
    for number in range(5):
        write_tar(
            tmp_path / "photos" / f"{number:03d}.tar",
            {f"{i}.jpg": jpg(90, 60, seed=10 * number + i) for i in range(2)},
        )
    here = replace(tiny, dataset="webdataset", data=str(tmp_path / "photos"), split=None, limit=None)
    return replace(here, canvas=48, shard_size=3, teachers=(), weights={}, tars_per_part=2)


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """The stores that were built, without Ray; in the order of their builds."""
    stores: list[str] = []

    def build(config: BuildConfig, tars, connect) -> dict:
        request, source = prepare(config, tars)
        columns = request.columns()
        missing = [column.missing() for column in columns]
        status = "planned" if config.dry_run else "built" if any(missing) else "up to date"
        sums = {}
        if status == "built":
            stores.append(config.store)
            reports = build_missing(request, source, config.shard_size)
            publish_manifests(columns)
            sums = {
                "shards": len(reports),
                "samples": sum(report.samples for report in reports),
                "skipped": {},
                "seconds": {"total": 1.0},
            }
        return describe(request.store, columns, missing, status=status) | sums

    monkeypatch.setattr(parts, "build_shards", build)
    return stores


def test_parts__have_the_photos_of_all_tars_once(config, built):
    summary = build_parts(config)
    assert built == [part_url(config.store, part) for part in range(3)]
    assert (summary["status"], summary["parts"], summary["samples"]) == ("built", 3, 10)
    assert [column["shards"] for column in summary["columns"]] == [5, 5]
    store = open_store(config.store)
    assert isinstance(store, PartedStore)
    listed = [item.key for item in open_source("webdataset", config.data).items]
    assert [record.key for record in store.samples()] == listed


def test_parts__that_are_finished_are_not_listed_again(config, built, monkeypatch):
    build_parts(config)
    scanned = []
    monkeypatch.setattr(parts, "prepare", lambda *_: [scanned.append("first"), prepare(*_)][1])
    Path(part_url(config.store, 1), "images", "000000.json").unlink()
    monkeypatch.setattr(parts, "list_photos", lambda config, tars, lister: scanned.append(sorted(tars)))
    summary = build_parts(replace(config, tars_per_part=None))
    assert built[3:] == [part_url(config.store, 1)]
    assert scanned == ["first", ["004.tar"]]
    assert (summary["status"], summary["samples"]) == ("built", 3)
    assert build_parts(config)["status"] == "up to date"


def test_parts__the_next_is_listed_while_one_is_built(config, built, monkeypatch):
    order = []
    build = parts.build_shards

    def building(config, tars, connect):
        beyond = Path(part_url(str(Path(config.store).parents[2]), len(order) + 1), "index")
        found = build(config, tars, connect)
        order.append(beyond.is_dir())
        return found

    monkeypatch.setattr(parts, "build_shards", building)
    monkeypatch.setattr(
        parts,
        "ThreadPoolExecutor",
        lambda *_: mock.MagicMock(
            __enter__=lambda self: mock.Mock(submit=lambda work, *a: [work(*a), mock.Mock()][1])
        ),
    )
    build_parts(config)
    assert order == [True, True, False]


def test_parts__a_dry_run_writes_nothing_and_lists_the_first(config, built):
    summary = build_parts(replace(config, dry_run=True))
    assert (summary["status"], summary["unlisted"], summary["parts"]) == ("planned", 2, 3)
    assert not Path(config.store).exists()
    assert built == []


def test_parts__take_tars_that_are_added_later_and_refuse_fewer(config, built, tmp_path):
    build_parts(replace(config, tars_per_part=5))
    write_tar(tmp_path / "photos" / "005.tar", {"0.jpg": jpg()})
    assert build_parts(replace(config, tars_per_part=None))["parts"] == 2
    assert len(list(open_store(config.store).samples())) == 11
    with pytest.raises(DenseCLIError, match="another tars_per_part: 5, not 2"):
        build_parts(config)
    (tmp_path / "photos" / "005.tar").unlink()
    with pytest.raises(DenseCLIError, match="has 2 parts, and there are tars for 1"):
        build_parts(replace(config, tars_per_part=None))


def test_parts__a_limit_counts_the_photos_of_all(config, built):
    build_parts(replace(config, limit=5))
    assert len(built) == 2
    assert [open_store(url).dataset["n"] for url in built] == [4, 1]


def test_parts__need_tars_and_a_store_of_their_own(config, built, tmp_path):
    with pytest.raises(DenseCLIError, match="does not come in tars") as caught:
        build_parts(replace(config, dataset="folder"))
    assert "--dataset sa1b or webdataset" in caught.value.hint
    plain = replace(config, tars_per_part=None, store=str(tmp_path / "plain"))
    assert not in_parts(plain)
    parts.build_shards(plain, None, None)
    with pytest.raises(DenseCLIError, match="has no parts"):
        build_parts(replace(plain, tars_per_part=2))


def test_listing__of_a_billion_photos_in_parts_keeps_one_part(tmp_path, monkeypatch):
    """100,000 tars of 10,000 photos, numbers alone: memory is that of a part, whichever it is."""
    tars = {f"{i:06d}.tar": Entry(10**9, str(i), False) for i in range(100_000)}
    rows = headers.table([(f"{i:05d}.jpg".encode(), 512 * i, 100_000, 0, 0) for i in range(10_000)])
    monkeypatch.setattr(headers, "scan_tar", lambda *_, **__: (rows.copy(), PassedOver()))
    peaks, names = [], list(tars)
    for first in (0, 50_000, 99_936):
        tracemalloc.start()
        group = {name: tars[name] for name in names[first : first + 64]}
        source = open_source("webdataset", str(tmp_path), tars=group)
        assert len(source.items) == 640_000
        assert source.items[639_999].key == f"{first + 63:06d}+09999"
        peaks.append(tracemalloc.get_traced_memory()[1])
        del source
        tracemalloc.stop()
    assert max(peaks) < 100e6
    assert max(peaks) < 1.1 * min(peaks)


def test_lanes__of_a_billion_photos_start_anywhere():
    sizes = np.array(shard_sizes(10**9, 256))
    tracemalloc.start()
    lanes = Lanes(sizes, 4096, seed=0, window=4)
    share = next(lanes.shares(3, 700_000_000 // 4096 * 4096, batch=4096, rank=1000, world_size=1024))
    assert share.shape == (4, 4)
    assert tracemalloc.get_traced_memory()[1] < 250e6
    tracemalloc.stop()


@pytest.mark.ray
@pytest.mark.slow
def test_parts__from_tars_to_an_evaluated_student(tmp_path, monkeypatch):
    """Two parts built on one Ray, joined with a third store, trained, verified and evaluated."""
    write_coco(tmp_path / "world", seed=0, split="val", count=12)
    photos = sorted((tmp_path / "world" / "val").glob("*.*"))
    for number in range(3):
        members = {path.name: path.read_bytes() for path in photos[4 * number : 4 * number + 4]}
        write_tar(tmp_path / ("more" if number == 2 else "photos") / f"{number}.tar", members)
    out = tmp_path / "out.json"

    def told(*words: object) -> dict:
        passed(*words, "--json", out)
        return json.loads(out.read_text())

    build = (
        "build-shards", "--dataset", "webdataset", "--teacher", "scenes-s", "--weights", "scenes-s=random:0",
        "--categories", "scenes", "--canvas", 96, "--shard-size", 2, "--device", "cpu",
    )  # fmt: skip
    store, more = tmp_path / "store", tmp_path / "second"
    parted = (*build, "--data", tmp_path / "photos", "--store", store, "--tars-per-part", 1)
    started, start = [], cluster._start
    monkeypatch.setattr(cluster, "_start", lambda **options: [started.append(options), start(**options)])
    assert (told(*parted)["parts"], told(*parted)["status"]) == (2, "up to date")
    assert len(started) == 1
    with without_ray():
        passed(*build, "--data", tmp_path / "more", "--store", more)
    held = told("info", "--store", store)
    assert [part["planned"] for part in held["parts"]] == [4, 4] and held["together"]["planned"] == 8
    assert {column["missing"] for column in held["together"]["columns"]} == {0}
    assert told("lint", "--store", store)["findings"] == []
    assert told("verify", "--store", store, "--device", "cpu")["verified"]

    def train(run: str, *words: object) -> list[dict]:
        passed(
            "train", "--store", store, "--store", more, "--run", tmp_path / run, "--student", "scenes-s",
            "--weights", "scenes-s=random:1", "--max-steps", 6, "--batch-size", 4, "--device", "cpu",
            "--checkpoint-every", 2, *words,
        )  # fmt: skip
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "images_per_s"} for line in lines]

    whole = train("whole")
    assert len(whole) == 6 and [row["epoch"] for row in whole] == [0, 0, 0, 1, 1, 1]
    train("cut")
    for path in (tmp_path / "cut" / "checkpoints").iterdir():
        if "6" in path.name:
            path.unlink()
    assert train("cut") == whole
    (result,) = told(
        "evaluate", "--data", tmp_path / "world", "--split", "val", "--run", tmp_path / "whole",
        "--categories", "scenes", "--device", "cpu",
    ).values()  # fmt: skip
    assert result["random_weights"] and result["things"] + result["stuffs"] > 0
    assert read_parts(str(store))["parts"] == 2


def test_relabel_mix_and_gc__are_done_to_each_part(config, built, tmp_path):
    teachers = {"teachers": ("features-scenes-s", "scenes-s"), "weights": {"scenes-s": "random:0"}}
    build_parts(replace(config, **teachers, categories="scenes"))
    alone = tmp_path / "alone"
    shutil.copytree(part_url(config.store, 1), alone)

    made = tmp_path / "made.json"
    words = ("--weights", "scenes-s=random:0", "--categories", "scenes", "--tau", 0.5, "--json", made)
    passed("relabel", "--store", config.store, *words)
    summary = json.loads(made.read_text())
    assert (summary["status"], summary["parts"], summary["samples"]) == ("built", 3, 10)
    passed("relabel", "--store", alone, *words)
    [one], [other] = (
        Path(root, "targets").glob("relabel-*/000000.tar") for root in (alone, part_url(config.store, 1))
    )
    assert one.read_bytes() == other.read_bytes()
    passed("relabel", "--store", config.store, *words)
    assert json.loads(made.read_text())["status"] == "up to date"

    names = [column.name for column in open_store(config.store).columns("targets")]
    assert names == ["features-scenes-s", "relabel-scenes-s", "scenes-s"]
    rubbish = tmp_path / "rubbish.json"
    words = ("gc", "--store", config.store, "--runs", tmp_path / "runs", "--min-age", 0)
    passed(*words, "--keep", "scenes-s", "--keep", "features-scenes-s", "--delete", "--json", rubbish)
    gone = [Path(item["url"]) for item in json.loads(rubbish.read_text())["items"]]
    assert [path.name.rpartition("-")[0] for path in gone] == ["relabel-scenes-s"] * 3
    assert not any(path.exists() for path in gone)


def test_mix__of_a_store_of_parts_is_that_of_each(config, built):
    teachers = {
        "teachers": ("scenes-s", "scenes-l"),
        "weights": dict.fromkeys(("scenes-s", "scenes-l"), "random:0"),
    }
    build_parts(replace(config, **teachers, categories="scenes"))
    passed("mix", "--store", config.store)
    [mixed] = (c for c in open_store(config.store).columns("targets") if c.name.startswith("mix-"))
    assert not mixed.missing() and len(mixed.parts) == 3
