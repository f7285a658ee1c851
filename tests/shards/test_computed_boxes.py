"""Format 2: boxes of grids are computed, and are those that format 1 stored, bit for bit."""

import json
from pathlib import Path

import numpy as np
import pytest
from formats import format_1, format_2
from hypothesis import given
from hypothesis import strategies as st

from densecli.core.errors import DenseCLIError
from densecli.shards.gc import delete, garbage
from densecli.shards.geometry import Canvas
from densecli.shards.info import describe, report
from densecli.shards.keys import canonical_json, column_key, short_id
from densecli.shards.lint import lint
from densecli.shards.npz import decode_npz, npz_bytes
from densecli.shards.parted_store import open_store
from densecli.shards.reader import StoreReader
from densecli.shards.regions import PAIRS, GridPlan, Grids, Regions
from densecli.shards.store import Store
from densecli.shards.webdataset import JoinedSamples
from densecli.shards.writer import ShardWriter, json_bytes


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return format_1(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def new(old: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return format_2(old, tmp_path_factory.mktemp("new") / "store")


def columns(store: Store) -> list:
    labels = store.find("targets", "scenes-pvlm")
    return [store.images, store.regions_of(labels), labels]


def test_format_1__is_read_and_stays_what_it_is(old):
    assert old.format == 1
    assert [*lint(old)] == []
    assert [c.computed for c in columns(old)] == [False] * 3
    assert Store.create(old.root, old.dataset, old.canvas, list(old.shard_sizes)) == old


def test_samples__of_both_formats_are_equal_bit_for_bit(old, new):
    assert (new.format, [c.computed for c in columns(new)]) == (2, [False, True, False])
    readers = [StoreReader(columns(store), seed=3, lanes=2, window=1) for store in (old, new)]
    for epoch in range(2):
        one, other = ([*reader.iter(epoch, batch=2)] for reader in readers)
        assert len(one) == 5 and one == other
        for a, b in zip(one, other, strict=True):
            assert list(a.parts) == list(b.parts)
            assert bytes(a.parts["regions"]["npz"]) == bytes(b.parts["regions"]["npz"])
            stored, computed = a.regions(), b.regions()
            assert stored.boxes.tobytes() == computed.boxes.tobytes()
            assert stored.offsets.tolist() == computed.offsets.tolist()
            assert all((a.arrays("regions")[n] == v).all() for n, v in b.arrays("regions").items())


def test_webdataset__gets_the_same_members(old, new):
    assert [*JoinedSamples(columns(old))()] == [*JoinedSamples(columns(new))()]


def test_samples__of_a_store_and_its_like_are_those_of_each(old, new):
    joined = open_store(f"{old.root} + {new.root}")
    assert [c.name for c in joined.columns()] == ["grid-square", "scenes-pvlm"]
    for where in ([*columns(joined)], [joined.find("regions", "grid-square"), *columns(joined)[::2]]):
        found = [*StoreReader(where, shuffle=False).iter(0)]
        assert len(found) == 10
        assert [r.parts for r in found[:5]] == [r.parts for r in found[5:]]


@given(
    pairs=st.sampled_from(sorted(PAIRS)),
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    side=st.sampled_from([64, 224, 512, 560, 1024]),
)
def test_boxes__computed_from_what_stands_in_a_store_are_those_that_were_written(pairs, width, height, side):
    valid = Canvas(side).valid_box(width, height).tolist()
    stored = decode_npz(npz_bytes(GridPlan(pairs).of_photo({"valid": valid}).arrays))
    read = json.loads(json_bytes({"valid": valid}))
    spec = json.loads(canonical_json(GridPlan(pairs).spec))
    computed = Grids.of(spec).of_photo(read)
    assert Regions.of(stored).boxes.tobytes() == computed.boxes.tobytes()
    assert Regions.of(stored).offsets.tolist() == computed.offsets.tolist()


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"plan": "masks"}, "do not follow"),
        ({"plan": "grid"}, "pairs is not a list"),
        ({"plan": "grid", "pairs": []}, "not rows and columns"),
        ({"plan": "grid", "pairs": [[0, 3]]}, "not rows and columns"),
        ({"plan": "grid", "pairs": [[2, 2, 2]]}, "not rows and columns"),
        ({"plan": "grid", "pairs": [[2.5, 2]]}, "whole number"),
        ({"plan": "grid", "pairs": [[10**9, 10**9]]}, "more than"),
    ],
)
def test_description__of_boxes_that_cannot_be_computed_is_refused(tmp_path, spec, what):
    store = Store.create(tmp_path / "s", {"name": "x"}, 64, [1])
    with pytest.raises(DenseCLIError, match=what):
        store.add_column("regions", "grid-odd", {**spec, "stored": False})
    troubles = [finding.trouble for finding in lint(store)]
    assert any(what in trouble for trouble in troubles)


def test_boxes__without_their_photos_are_refused(new):
    photos, regions, labels = columns(new)
    for wanted in ([regions, labels], [labels, regions], [regions]):
        with pytest.raises(DenseCLIError, match="computed from the photos") as caught:
            StoreReader(wanted)
        assert "store.images" in caught.value.hint
    assert len([*StoreReader([labels, regions, photos]).iter(0)]) == 5


@pytest.mark.parametrize(
    "about", [b"{}", b'{"valid":[0,0,1]}', b'{"valid":["a",0,1,1]}', b'{"valid":[0,0,1e39,1]}']
)
def test_boxes__of_a_photo_whose_description_is_odd(tmp_path, about):
    store = Store.create(tmp_path / "s", {"name": "x"}, 64, [1])
    regions = store.add_column("regions", "grid-square", {**GridPlan("square").spec, "stored": False})
    writer = ShardWriter(store.images, "000000")
    writer.add("k", {"json": about})
    writer.commit()
    (record,) = StoreReader([store.images, regions]).iter(0)
    for read in (record.regions, lambda: record.arrays("regions")):
        with pytest.raises(DenseCLIError, match=r"sample k in .*images/000000.tar is damaged"):
            read()


def test_column__has_no_shards_and_lacks_none(new):
    regions = columns(new)[1]
    assert (regions.missing(), regions.complete, regions.has("000001")) == ([], True, True)
    assert [path.name for path in Path(regions.url).iterdir()] == ["column.json"]


def test_lint__finds_nothing_but_what_does_not_belong_there(new, tmp_path):
    read = []
    assert [*lint(new, read.append)] == []
    assert sum(read) == 6
    stray = Path(columns(new)[1].url, "000000.tar")
    stray.touch()
    (finding,) = lint(new)
    stray.unlink()
    assert finding.url == str(stray) and "not part of the store" in finding.trouble


def test_info__says_that_boxes_are_computed(new):
    described = describe(new)
    (boxes,) = (column for column in described["columns"] if column["kind"] == "regions")
    assert (boxes["computed"], boxes["samples"], boxes["missing"]) == (True, 5, 0)
    assert boxes["bytes"] == Path(columns(new)[1].url, "column.json").stat().st_size
    on_disk = sum(path.stat().st_size for path in Path(new.root).rglob("*") if path.is_file())
    assert described["bytes"] == on_disk and described["complete"]
    printed = report(described)
    assert "computed" in printed and "Without a manifest" not in printed


def test_gc__deletes_boxes_that_nothing_names(old, tmp_path):
    store = format_2(old, tmp_path / "store")
    unused = store.add_column("regions", "grid-paper", {**GridPlan("paper").spec, "stored": False})
    found = garbage(store, runs=str(tmp_path / "runs"), keep=["scenes-pvlm"], min_age=-1)
    assert [(item.url, item.column) for item in found] == [(unused.url, True)]
    delete(found)
    assert [column.name for column in store.columns("regions")] == ["grid-square"]


def test_key__of_computed_boxes_is_another_than_of_stored_ones(new):
    regions = columns(new)[1]
    assert regions.id == short_id(column_key(regions.spec)) and regions.spec["stored"] is False
    spec = {name: regions.spec[name] for name in ("plan", "pairs")}
    assert new.column("regions", regions.name, spec).key != regions.key


def test_computed_boxes__are_the_writer_s_arrays(new):
    record = next(new.samples("scenes-pvlm"))
    arrays = decode_npz(record.parts["regions"]["npz"])
    assert {name: (a.dtype.str, a.shape) for name, a in arrays.items()} == {
        "boxes": ("<f4", (66, 4)),
        "offsets": ("<i4", (6,)),
    }
    assert "jpg" not in record.parts["regions"] and len(record.parts["regions"]) == 1
    with pytest.raises(KeyError):
        record.parts["regions"]["jpg"]
    assert np.isfinite(arrays["boxes"]).all()
