import json
import shutil

import pytest

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.keys import column_key
from densecli.shards.store import PHOTOS, Store
from densecli.shards.writer import ShardWriter

DATASET = {"name": "coco", "split": "train2017", "digest": "abc", "n": 3}
SPEC = {"teacher": "vitl14", "weights": "0" * 64, "codec": {"name": "topk", "k": 16}}


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store", DATASET, 512, [2, 1])


def refused(call, *words):
    """The call is refused in one sentence with these words, and a hint says what to do."""
    with pytest.raises(DenseCLIError) as caught:
        call()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.endswith(".") and "\n" not in message
    assert caught.value.hint.endswith(".")


def test_create__writes_what_open_reads(store, tmp_path):
    opened = Store.open(tmp_path / "store")
    assert opened == store == Store.create(tmp_path / "store", DATASET, 512, [2, 1])
    assert (opened.dataset, opened.canvas, opened.shard_sizes) == (DATASET, 512, (2, 1))
    assert opened.shard_names == ("000000", "000001")


@pytest.mark.parametrize(
    ("dataset", "canvas", "shards", "word"),
    [
        (DATASET, 560, [2, 1], "canvas"),
        ({**DATASET, "digest": "abd"}, 512, [2, 1], "dataset"),
        (DATASET, 512, [3], "number of shards"),
        (DATASET, 512, [1, 2], "division into shards"),
    ],
)
def test_create__another_identity_is_refused(store, dataset, canvas, shards, word):
    before = fs.read_bytes(fs.join(store.root, "store.json"))
    refused(lambda: Store.create(store.root, dataset, canvas, shards), f"another {word}")
    assert fs.read_bytes(fs.join(store.root, "store.json")) == before


def test_create__photos_made_otherwise_are_refused(store, monkeypatch):
    for name, other in (("quality", 90), ("resample", "lanczos"), ("codec", "png")):
        with monkeypatch.context() as patch:
            patch.setitem(PHOTOS, name, other)
            refused(lambda: Store.create(store.root, DATASET, 512, [2, 1]), "another storage of photos")
            assert Store.open(store.root) == store


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "no store"),
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b'{"format":1}', "damaged"),
        (b'{"format":9}', "9"),
    ],
)
def test_open__what_is_not_a_store_is_refused(tmp_path, content, word):
    if content is not None:
        (tmp_path / "store.json").write_bytes(content)
    refused(lambda: Store.open(tmp_path), word)


def test_open__a_file_in_place_of_the_folder(store):
    refused(lambda: Store.open(f"{store.root}/store.json"), "no store")


def test_add_column__the_same_spec_is_the_same_column(store):
    column = store.add_column("targets", "vitl14", SPEC, {"seen": 1})
    again = store.add_column("targets", "vitl14", dict(reversed(SPEC.items())), {"seen": 2})
    assert again == column == store.columns("targets")[0]
    assert column.info == {"seen": 1}
    assert column.url.endswith(f"/targets/vitl14-{column.id}")
    assert column.key == column_key(column.spec) and column.id == column.key[:12]
    assert (column.kind, column.name, column.part) == ("targets", "vitl14", "vitl14")
    assert {k: column.spec[k] for k in SPEC} == SPEC


@pytest.mark.parametrize(
    "change",
    [{"teacher": "vitb16"}, {"weights": "1" * 64}, {"codec": {"name": "topk", "k": 8}}, {"new": None}],
)
def test_add_column__any_change_is_a_new_column_and_leaves_the_old_alone(store, change):
    old = store.add_column("targets", "vitl14", SPEC)
    before = fs.read_bytes(fs.join(old.url, "column.json"))
    new = store.add_column("targets", "vitl14", {**SPEC, **change})
    assert new.id != old.id
    assert {c.id for c in store.columns()} == {old.id, new.id}
    assert fs.read_bytes(fs.join(old.url, "column.json")) == before


def test_add_column__another_store_gives_the_same_spec_another_key(store, tmp_path):
    other = Store.create(tmp_path / "other", DATASET, 560, [2, 1])
    assert store.add_column("targets", "v", SPEC).key != other.add_column("targets", "v", SPEC).key
    assert store.images.key != other.images.key


def test_column__is_what_add_column_makes_and_writes_nothing(store, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    planned = [
        store.column("targets", "vitl14", SPEC, {"seen": 1}),
        store.column("regions", "grid-paper", {"pairs": ((2, 3),)}),
    ]
    assert planned[0].missing() == ["000000", "000001"]
    assert sorted(tmp_path.rglob("*")) == before
    assert planned == [
        store.add_column("targets", "vitl14", SPEC, {"seen": 1}),
        store.add_column("regions", "grid-paper", {"pairs": ((2, 3),)}),
    ]


def test_regions_of__the_column_a_target_was_made_for(store):
    first, second = (store.add_column("regions", "grid", {"n": n}) for n in (1, 2))
    target = store.add_column("targets", "v", {"regions": second.key})
    assert store.regions_of(target) == second != first
    anywhere = store.add_column("targets", "x", {})
    refused(lambda: store.regions_of(anywhere), "2 region plans", "x")
    orphan = store.add_column("targets", "w", {"regions": "0" * 64})
    refused(lambda: store.regions_of(orphan), "lacks the regions", "w")


@pytest.mark.parametrize("name", ["kind", "name", "data"])
def test_add_column__the_stores_own_names_are_refused(store, name):
    with pytest.raises(ValueError, match="store fills in"):
        store.add_column("targets", "v", {name: 1})


def test_columns__by_kind(store):
    regions = store.add_column("regions", "grid-paper", {"plan": "grid"})
    target = store.add_column("targets", "vitl14", {})
    assert regions.url.endswith(f"/regions/{regions.id}") and regions.part == "regions"
    assert store.columns() == [regions, target]
    assert store.columns("regions") == [regions]
    assert store.images.url.endswith("/images") and store.images.part == "images"


def test_find__one_none_or_several(store):
    first = store.add_column("targets", "vitl14", {})
    assert store.find("targets", "vitl14") == store.find("targets", f"vitl14-{first.id}") == first
    refused(lambda: store.find("targets", "vitb16"), "no targets columns", "vitb16")
    store.add_column("targets", "vitl14", {"k": 8})
    refused(lambda: store.find("targets", "vitl14"), "2 targets columns")
    assert store.find("targets", f"vitl14-{first.id}") == first


@pytest.mark.parametrize("part", ["spec", "key", "folder", "json"])
def test_open_column__what_does_not_hash_to_its_id_is_refused(store, part):
    column = store.add_column("targets", "vitl14", SPEC)
    url = fs.join(column.url, "column.json")
    document = json.loads(fs.read_bytes(url))
    if part == "spec":
        document["spec"]["teacher"] = "vitb16"
    if part == "key":
        document["key"] = "0" * 64
    fs.write_atomic(url, b"{" if part == "json" else json.dumps(document).encode())
    if part == "folder":
        shutil.move(column.url, column.url[:-1] + "z")
    refused(store.columns, "is damaged" if part == "json" else "does not hash")


@pytest.mark.parametrize(("place", "value"), [
    ("spec", None), ("spec", []), ("info", 1), ("key", 7), ("kind", "images"), ("kind", None), ("name", 1),
    ("data", {"canvas": 512}), ("data", "x"), ("target", []), ("codec", "topk"), ("regions", 5),
])  # fmt: skip
def test_open_column__values_of_other_types_are_refused(store, place, value):
    column = store.add_column("targets", "vitl14", SPEC)
    url = fs.join(column.url, "column.json")
    document = json.loads(fs.read_bytes(url))
    (document if place in document else document["spec"])[place] = value
    fs.write_atomic(url, json.dumps(document).encode())
    refused(store.columns, url, "damaged")


@pytest.mark.parametrize("change", [
    {"canvas": "512"}, {"canvas": 0}, {"canvas": 512.0}, {"shards": 2}, {"shards": [2, "1"]},
    {"shards": [-1]}, {"shards": [1e3]}, {"dataset": []}, {"dataset": {"name": 1}},
    {"photos": None}, {"canvas": True},
])  # fmt: skip
def test_open__values_of_other_types_are_refused(store, change):
    document = {**store.document(), **change}
    fs.write_atomic(fs.join(store.root, "store.json"), json.dumps(document).encode())
    refused(lambda: Store.open(store.root), "store.json", "damaged")


@pytest.mark.parametrize("content", [b"[" * 10**5, b'{"format":NaN}', b'{"format":"\\ud800"}', b"", b"\xff"])
def test_open__what_is_no_json_is_refused(store, content):
    fs.write_atomic(fs.join(store.root, "store.json"), content)
    refused(lambda: Store.open(store.root), "store.json", "damaged")


@pytest.mark.parametrize("codec", [{"name": "topk"}, {"name": "topk", "k": 1, "depth": 3}])
def test_column__a_codec_with_other_options_is_refused(store, codec):
    column = store.add_column("targets", "vitl14", {**SPEC, "codec": codec})
    refused(lambda: column.codec, "names no codec with options that this densecli knows")


@pytest.mark.parametrize(
    ("canvas", "dataset", "word"), [(560, DATASET, "canvas 560"), (512, {"n": 4}, "another data set")]
)
def test_open_column__one_of_another_store_is_refused(store, tmp_path, canvas, dataset, word):
    other = Store.create(tmp_path / "other", dataset, canvas, [2, 1])
    foreign = other.add_column("targets", "vitl14", SPEC)
    shutil.copytree(foreign.url, fs.join(store.root, "targets", f"vitl14-{foreign.id}"))
    refused(store.columns, word)


def test_missing__until_tar_and_receipt_are_both_there(store):
    column = store.add_column("targets", "vitl14", SPEC)
    assert column.missing() == ["000000", "000001"] and not column.complete
    ShardWriter(column, "000001").commit()
    assert column.missing() == ["000000"] and column.receipt("000000") is None
    # What a killed writer may leave: temporaries, or a tar without its receipt.
    fs.write_atomic(fs.join(column.url, ".000000.tar.0f.tmp"), b"half")
    fs.write_atomic(fs.join(column.url, ".000000.json.0f.tmp"), b"half")
    fs.write_atomic(column.tar_url("000000"), b"whole")
    assert column.missing() == ["000000"] and not column.has("000000") and column.has("000001")
    ShardWriter(column, "000000").commit()
    assert column.complete
    fs.remove(column.tar_url("000001"))
    assert column.missing() == ["000001"] and column.has("000000") and not column.has("000001")


def test_open__an_address_with_a_token_is_refused_and_not_repeated():
    with pytest.raises(DenseCLIError, match="credentials or a query") as caught:
        Store.open("https://host/store?token=secret")
    assert "secret" not in str(caught.value)
