"""Which boxes a build stores: those of grids only where asked to, or where it has stored them before."""

from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here, relabeller_of

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.pipeline.build_request import prepare
from densecli.pipeline.relabel import prepare as prepare_relabel
from densecli.pipeline.relabel_config import RelabelConfig
from densecli.pipeline.unit import Unit
from densecli.pipeline.verify import regions_beside
from densecli.shards.keys import canonical_json
from densecli.shards.parted_store import open_store
from densecli.shards.reader import StoreReader
from densecli.shards.store import Store


def computed(store: Store) -> dict[str, bool]:
    return {column.name: column.computed for column in store.columns("regions")}


def begin_format_1(config) -> Store:
    """A store of format 1 without a shard."""
    store = replace(prepare(config)[0].store, format=1)
    fs.write_atomic(fs.join(store.root, "store.json"), canonical_json(store.document()))
    return store


def test_build__stores_no_boxes_of_grids(tiny):
    request, _ = build_here(tiny)
    photos, regions, labels = request.columns()
    assert computed(request.store) == {regions.name: True}
    assert [path.name for path in Path(regions.url).iterdir()] == ["column.json"]
    assert len([*request.store.samples(labels)]) == len([*StoreReader([photos, labels]).iter(0)]) > 0


def test_build__gives_the_same_samples_with_stored_boxes(tiny, tmp_path):
    found = []
    for name, store_boxes in (("a", False), ("b", True)):
        request, _ = build_here(replace(tiny, store=str(tmp_path / name), store_boxes=store_boxes))
        photos, regions, labels = request.columns()
        assert regions.computed is not store_boxes
        found.append([*StoreReader([photos, regions, labels]).iter(0)])
    assert found[0] == found[1] and len(found[0]) > 0


def test_build__continues_a_store_that_has_stored_them(tiny):
    first, _ = build_here(replace(tiny, store_boxes=True))
    again, _ = prepare(tiny)
    assert [c.key for c in again.columns()] == [c.key for c in first.columns()]
    assert not any(column.missing() for column in again.columns())
    # Of another grid, it computes them.
    other, _ = build_here(replace(tiny, regions="grid-square"))
    assert computed(other.store) == {first.plan.name: False, "grid-square": True}


def test_build__cannot_store_boxes_that_are_computed(tiny):
    build_here(tiny)
    with pytest.raises(DenseCLIError, match="computes the boxes") as caught:
        prepare(replace(tiny, store_boxes=True))
    assert "--store-boxes" in caught.value.hint


def test_build__continues_a_store_of_format_1_in_format_1(tiny):
    begun = begin_format_1(tiny)
    request, _ = build_here(tiny)
    assert (Store.open(begun.root).format, Store.open(begun.root).data) == (1, begun.data)
    assert set(computed(request.store).values()) == {False}
    assert request.columns()[1].spec["data"] == begun.data
    other, _ = build_here(replace(tiny, regions="grid-square"))
    assert set(computed(other.store).values()) == {False}


def test_parts__may_be_of_both_formats(tiny, tmp_path):
    begin_format_1(replace(tiny, store=str(tmp_path / "a")))
    for name in "ab":
        build_here(replace(tiny, store=str(tmp_path / name)))
    both = open_store(f"{tmp_path / 'a'} + {tmp_path / 'b'}")
    assert [store.format for store in both.parts] == [1, 2]
    (labels,) = both.columns("targets")
    records = [*StoreReader([both.images, both.regions_of(labels), labels], shuffle=False).iter(0)]
    half = len(records) // 2
    assert half and records[:half] == records[half:]
    assert regions_beside(both, labels).parts[1].computed


def test_relabel__of_another_grid_computes_its_boxes(tiny):
    request, _ = build_here(replace(tiny, teachers=("features-scenes-s",)))
    config = RelabelConfig(
        store=request.store.root,
        weights=tiny.weights,
        templates="plain",
        regions="grid-square",
        categories="scenes",
    )
    wanted = prepare_relabel(config)
    assert wanted.regions.computed and wanted.regions.complete
    shard = request.store.shard_names[0]
    report = relabeller_of(wanted).build(Unit(shard=shard, items=()))
    assert report.samples == request.store.shard_sizes[0]
    assert wanted.labels.has(shard)
