import os
import socket
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from building import build_here
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.pipeline import build_shards as module
from densecli.pipeline import summary as totals
from densecli.pipeline.build_shards import build_shards
from densecli.pipeline.config import FailureSettings
from densecli.pipeline.run_units import run_units
from densecli.pipeline.unit import Report, Unit
from densecli.pipeline.worker_pool import WorkerPool

pytestmark = pytest.mark.ray


def tars(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(Path(root).rglob("*.tar"))}


def test_build_shards__stopped_halfway_and_started_again_equals_an_undisturbed_build(
    tiny, tmp_path, monkeypatch, files_of
):
    config = replace(tiny, limit=14)
    undisturbed, _ = build_here(replace(config, store=str(tmp_path / "undisturbed")))

    class Stopping(Progress):
        def advance(self, count, note=""):
            super().advance(count, note)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(totals, "Progress", Stopping)
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


def test_build_shards__an_error_in_a_worker_reaches_the_user_as_it_was_said(tiny, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(DenseCLIError, match="cannot be read as plain weights") as caught:
        build_shards(replace(tiny, weights={"scenes-s": str(broken)}))
    assert "Download it again" in caught.value.hint
    assert not Path(tiny.store).exists()


@pytest.fixture
def without_ray(monkeypatch):
    """Units are built in this process; build_shards itself counts."""
    monkeypatch.setattr(module, "connected", lambda address, workers: nullcontext())
    monkeypatch.setattr(
        module,
        "WorkerPool",
        lambda request, *_: SimpleNamespace(build=request.builder().build, named_left_out=list),
    )
    monkeypatch.setattr(module, "run_units", lambda units, pool, *_: (pool.build(unit) for unit in units))


def photos_without_bytes(tiny, folder, **settings):
    folder.mkdir()
    for i in range(8):
        (folder / f"{i}.jpg").write_bytes(b"")
    config = replace(tiny, dataset="folder", data=str(folder), split=None, limit=None, canvas=48)
    return replace(config, teachers=(), weights={}, **settings)


def test_build_shards__too_many_unreadable_photos_in_a_row_stop_it(tiny, tmp_path, without_ray):
    config = photos_without_bytes(tiny, tmp_path / "photos", shard_size=2, max_unreadable=4)
    with pytest.raises(DenseCLIError, match=r"4 photos in a row could not be read \(4 empty\)"):
        build_shards(config)


@pytest.mark.parametrize("shard_size", [3, 8])
def test_build_shards__a_store_without_a_photo_is_an_error_with_the_reasons(
    tiny, tmp_path, without_ray, shard_size
):
    config = photos_without_bytes(tiny, tmp_path / "photos", shard_size=shard_size)
    (tmp_path / "photos" / "8.jpg").write_bytes(b"no picture")
    # After the first time nothing is missing, and there is still no photo.
    for dry_run in (False, False, True):
        with pytest.raises(
            DenseCLIError, match=r"none of the 9 listed could be used \(8 empty, 1 not-an-image\)"
        ):
            build_shards(replace(config, dry_run=dry_run))


def test_build_shards__addresses_that_are_none_are_an_error_with_the_reasons(tiny, tmp_path, without_ray):
    config = photos_without_bytes(tiny, tmp_path / "photos")
    (tmp_path / "list.txt").write_text("javascript:alert(1)\nhttp://[\n")
    with pytest.raises(DenseCLIError, match=r"none of the 2 listed .*1 unknown-scheme"):
        build_shards(replace(config, dataset="urls", data=str(tmp_path / "list.txt")))


def test_build_shards__one_good_photo_among_bad_ones_is_a_store(tiny, tmp_path, without_ray):
    config = photos_without_bytes(tiny, tmp_path / "photos", shard_size=3)
    Image.new("RGB", (60, 40)).save(tmp_path / "photos" / "7.jpg")
    assert (build_shards(config)["samples"], build_shards(config)["status"]) == (1, "up to date")


def test_build_shards__a_cluster_out_of_reach_leaves_no_store(tiny):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(DenseCLIError, match="Cannot connect to the Ray cluster"):
        build_shards(replace(tiny, ray_address=address))
    assert not Path(tiny.store).exists()


def test_build_shards__a_dry_run_counts_what_each_column_lacks(tiny):
    request, _ = build_here(tiny)
    Path(request.columns()[2].receipt_url("000001")).unlink()
    summary = build_shards(replace(tiny, dry_run=True))
    assert summary["status"] == "planned"
    assert [column["missing"] for column in summary["columns"]] == [0, 0, 1]
    assert [column["computed"] for column in summary["columns"]] == [False, True, False]


def test_worker_pool__workers_share_a_gpu(tmp_path):
    class GpuWork:
        """Work that says which GPU it was given."""

        device = "cuda"

        def builder(self, threads):
            return self

        def build(self, unit, stop):
            (tmp_path / f"{os.getpid()}-{ray.get_gpu_ids()}").touch()
            time.sleep(1)
            return Report(shard=unit.shard, samples=1, skipped={}, seconds={})

    names = [f"{i:06d}" for i in range(8)]
    units = (Unit(shard=name, items=()) for name in names)
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        assert len(list(run_units(units, WorkerPool(GpuWork(), 2, 0.5), FailureSettings()))) == len(names)
    finally:
        ray.shutdown()
    workers, gpus = zip(*(path.name.split("-") for path in tmp_path.iterdir()), strict=True)
    assert len(workers) == 2
    assert set(gpus) == {"[0]"}
