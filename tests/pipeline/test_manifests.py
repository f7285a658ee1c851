"""Manifests around a build: withdrawn before anything changes, published once a column is finished."""

from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here

from densecli.core.errors import DenseCLIError
from densecli.pipeline import relabel as relabelling
from densecli.pipeline.build_shards import build_shards
from densecli.pipeline.relabel import prepare, relabel
from densecli.pipeline.relabel_config import RelabelConfig
from densecli.shards.lint import lint
from densecli.shards.manifest import manifest_url, read_manifest


@pytest.fixture
def request_(tiny):
    """The request of a build whose shards are finished, and whose columns have no manifest yet."""
    return build_here(replace(tiny, limit=3, shard_size=2))[0]


def test_build_shards__up_to_date_writes_what_is_missing_and_rewrites_nothing(tiny, request_, files_of):
    config = replace(tiny, limit=3, shard_size=2)
    advice = list(lint(request_.store))
    assert len(advice) == 2 and all("has no manifest" in each.trouble and not each.wrong for each in advice)
    before = files_of(request_.store.root)
    build_shards(replace(config, dry_run=True))
    assert files_of(request_.store.root) == before
    assert build_shards(config)["status"] == "up to date"
    assert list(lint(request_.store)) == []
    first = files_of(request_.store.root)
    assert {name: first[name] for name in before} == before
    assert {Path(name).name for name in first.keys() - before.keys()} == {"manifest.parquet", "keys.npy"}
    build_shards(config)
    assert files_of(request_.store.root) == first


def test_build_shards__a_damaged_manifest_is_written_anew(tiny, request_):
    config = replace(tiny, limit=3, shard_size=2)
    build_shards(config)
    path = Path(manifest_url(request_.store.images))
    sound = path.read_bytes()
    path.write_bytes(b"PAR1")
    [finding] = lint(request_.store)
    assert finding.wrong and "is damaged" in finding.trouble
    build_shards(config)
    assert path.read_bytes() == sound


@pytest.fixture
def relabel_config(tiny):
    config = replace(tiny, teachers=("features-scenes-s",), limit=3, shard_size=2, store_boxes=True)
    build_here(config)
    return RelabelConfig(store=config.store, weights={"scenes-s": "random:0"})


def test_relabel__withdraws_first_and_publishes_last(relabel_config, monkeypatch):
    relabel(relabel_config)
    request = prepare(relabel_config)
    assert read_manifest(request.labels).samples.tolist() == [2, 1]
    regions = Path(manifest_url(request.regions)).stat().st_mtime_ns
    Path(request.labels.receipt_url("000001")).unlink()

    def fails(*_):
        assert read_manifest(request.labels) is None
        raise DenseCLIError("No more.", hint="None.")

    with monkeypatch.context() as patch:
        patch.setattr(relabelling.Relabeller, "build", fails)
        with pytest.raises(DenseCLIError, match="No more"):
            relabel(relabel_config)
    assert read_manifest(request.labels) is None
    relabel(relabel_config)
    assert read_manifest(request.labels).samples.tolist() == [2, 1]
    # What was finished keeps its manifest all the time.
    assert Path(manifest_url(request.regions)).stat().st_mtime_ns == regions
