import os
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from PIL import Image

from pipeline import driver
from pipeline.cluster import connected
from pipeline.crew import Crew, run_units
from pipeline.driver import build_shards
from pipeline.job import prepare, unit_of
from pipeline.sources.base import Decoded
from shards.errors import DenseCLIError
from shards.progress import Progress
from shards.reader import read_joined


def tars(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(Path(root).rglob("*.tar"))}


def test_build_shards__stopped_halfway_and_started_again_equals_an_undisturbed_build(
    tiny, build_here, tmp_path, monkeypatch, files_of
):
    config = replace(tiny, limit=14)
    undisturbed, _ = build_here(replace(config, store=str(tmp_path / "undisturbed")))

    class Stopping(Progress):
        def advance(self, count, note=""):
            super().advance(count, note)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver, "Progress", Stopping)
        with pytest.raises(KeyboardInterrupt):
            build_shards(config)
    assert not ray.is_initialized()
    halfway = files_of(config.store)
    missing = build_shards(replace(config, dry_run=True))["columns"]
    assert 0 < missing[2]["missing"] < 4

    summary = build_shards(config)
    assert summary["status"] == "built"
    assert not ray.is_initialized()
    assert tars(config.store) == tars(undisturbed.store.root)
    finished = {name for name in halfway if not name.startswith(".") and not name.endswith(".tmp")}
    after = files_of(config.store)
    assert all(after[name] == halfway[name] for name in finished if name.endswith(".json"))


def test_run_units__a_worker_that_dies_is_replaced_and_a_shard_that_cannot_be_built_ends_the_run(
    tiny, tmp_path
):
    died = tmp_path / "died"
    job, source = prepare(replace(tiny, limit=3, shard_size=1))

    def deadly(item, canvas):
        if item.ref == "1" and not died.exists():
            died.touch()
            os._exit(1)
        if item.ref == "2":
            while any(column.missing() != ["000002"] for column in job.columns()):
                time.sleep(0.1)
            raise OSError("the disk is on fire")
        return Decoded(Image.new("RGB", (96, 96)), 96, 96)

    deadly_job = replace(job, load=deadly)
    units = (unit_of(source, shard, 1) for shard in job.store.shard_names)
    done = []
    message = r"000002 failed 2 times.*OSError: the disk is on fire"
    with connected(None, 1), pytest.raises(DenseCLIError, match=message):
        for unit, _ in run_units(units, Crew(deadly_job, 1), max_attempts=2):
            done.append(unit.shard)
    assert died.exists()
    assert sorted(done) == ["000000", "000001"]
    assert len(read_joined(job.columns(), "000001")) == 1


def test_build_shards__an_error_in_a_worker_reaches_the_user_as_it_was_said(tiny, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(DenseCLIError, match="cannot be read as plain weights") as caught:
        build_shards(replace(tiny, weights={"scenes-s": str(broken)}))
    assert "state_dict" in caught.value.hint
    assert not Path(tiny.store).exists()


def test_build_shards__too_many_unreadable_photos_in_a_row_stop_it(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i}.jpg").write_bytes(b"")
    config = replace(
        tiny, dataset="folder", data=str(folder), split=None, limit=None, shard_size=2, canvas=48
    )
    config = replace(config, teachers=(), weights={}, max_unreadable=4)

    # Without Ray: how many are too many is the driver's own affair.
    monkeypatch.setattr(driver, "connected", lambda address, workers: nullcontext())
    monkeypatch.setattr(driver, "Crew", lambda job, workers, gpus: job.builder())
    monkeypatch.setattr(
        driver, "run_units", lambda units, builder, *_: ((u, builder.build(u)) for u in units)
    )
    with pytest.raises(DenseCLIError, match=r"4 photos in a row could not be read \(4 empty\)"):
        build_shards(config)
