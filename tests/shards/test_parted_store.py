"""Several stores read as one: every sample once, exact resume, and what cannot be joined is refused."""

import json
from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.core.key_share import KeyRange, share_of_key
from densecli.shards.gc import garbage
from densecli.shards.manifest import read_manifest
from densecli.shards.parted_column import ShardNames
from densecli.shards.parted_store import PartedStore, open_store, part_url, read_parts, write_parts
from densecli.shards.reader import StoreReader
from densecli.shards.receipt_totals import publish
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter


def made(root: Path, first: int, sizes: list[int], canvas: int = 48, teacher: str = "t") -> Store:
    """A store of samples with numbers from `first` on: photos, one region plan and one column about it."""
    dataset = {"name": "numbers", "split": "", "digest": str(first), "n": sum(sizes)}
    store = Store.create(root, dataset, canvas, sizes)
    regions = store.add_column("regions", "grid-2", {"plan": "grid-2"})
    spec = {"target": {"name": "labels"}, "codec": {"name": "rows", "dtype": "fp32"}, "regions": regions.key}
    targets = store.add_column("targets", teacher, spec)
    for column in (store.images, regions, targets):
        number = first
        for shard, n in zip(store.shard_names, sizes, strict=True):
            writer = ShardWriter(column, shard)
            for _ in range(n):
                writer.add(f"k{number}", {"npz": f"{column.name} {number}".encode()})
                number += 1
            writer.commit()
    return store


@pytest.fixture
def two(tmp_path) -> PartedStore:
    made(tmp_path / "a", 0, [3, 2])
    made(tmp_path / "b", 100, [4])
    return open_store(f"{tmp_path / 'a'} + {tmp_path / 'b'}")


def test_store__has_the_samples_of_all_parts_with_their_columns(two):
    records = list(two.samples("t"))
    numbers = [0, 1, 2, 3, 4, 100, 101, 102, 103]
    assert [record.key for record in records] == [f"k{n}" for n in numbers]
    assert [bytes(record.parts["t"]["npz"]).decode() for record in records] == [f"t {n}" for n in numbers]
    assert two.dataset["n"] == 9
    assert list(two.shard_names) == ["0/000000", "0/000001", "1/000000"]
    assert [two.regions_of(two.find("targets", "t")).name, two.keys_twice().number] == ["grid-2", 0]


def test_manifests__of_parts_are_one(two):
    columns = [two.images, two.find("regions", "grid-2"), two.find("targets", "t")]
    ranges = [KeyRange("a", 0.0, 0.5)]
    counted, half = ShardTable.of(columns), ShardTable.of(columns, ranges)
    assert counted.samples.tolist() == [3, 2, 4]
    assert read_manifest(two.images) is None
    for column in columns:
        for part in column.parts:
            publish(part)
    joined = read_manifest(two.images)
    assert (joined.shards.tolist(), joined.samples.tolist()) == ([0, 1, 2], [3, 2, 4])
    assert half.kept.tolist() == ShardTable.of(columns, ranges).kept.tolist()
    kept = [share_of_key(record.key, "a") < 0.5 for record in two.samples("t")]
    assert half.kept.tolist() == [sum(kept[:3]), sum(kept[3:5]), sum(kept[5:])] != [3, 2, 4]
    assert ShardTable.of(columns).tar_bytes.tolist() == counted.tar_bytes.tolist()
    assert joined.totals["run"]["receipt_bytes"] == sum(
        len(Path(two.images.receipt_url(shard)).read_bytes()) for shard in two.shard_names
    )


def test_reader__deals_lanes_over_all_and_resumes_exactly(two):
    columns = [two.images, two.find("regions", "grid-2"), two.find("targets", "t")]
    reader = StoreReader(columns, seed=1, lanes=2, window=2)
    whole = [record.key for record in reader.iter(0, batch=3)]
    assert sorted(whole) == sorted(f"k{n}" for n in (0, 1, 2, 3, 4, 100, 101, 102, 103))
    again = StoreReader(columns, seed=1, lanes=2, window=2)
    assert [record.key for record in again.iter(0, 3, batch=3)] == whole[3:]


def test_column__keys_follow_from_the_parts_and_their_order(two, tmp_path):
    other = open_store(f"{tmp_path / 'b'} + {tmp_path / 'a'}")
    keys = [store.find("targets", "t").key for store in (two, other, open_store(two.root))]
    assert keys[0] == keys[2] != keys[1]


def test_column__that_one_part_lacks_is_not_there(two, tmp_path):
    made(tmp_path / "c", 200, [2], teacher="u")
    three = open_store(f"{two.root} + {tmp_path / 'c'}")
    assert [column.name for column in three.columns()] == ["grid-2"]
    assert len(three.parts) == 3


def test_column__unfinished_in_a_part_is_refused(two):
    Path(two.parts[1].images.receipt_url("000000")).unlink()
    assert two.images.missing() == ["1/000000"]
    with pytest.raises(DenseCLIError, match="not finished"):
        list(two.samples())


def test_keys__that_occur_twice_are_counted(two, tmp_path):
    made(tmp_path / "c", 102, [3])
    found = open_store(f"{two.root} + {tmp_path / 'c'}").keys_twice()
    assert found == (2, "k102")


def test_store__of_other_canvases_is_refused(two, tmp_path):
    made(tmp_path / "c", 200, [2], canvas=64)
    with pytest.raises(DenseCLIError, match="another canvas"):
        open_store(f"{two.root} + {tmp_path / 'c'}")
    with pytest.raises(DenseCLIError, match="no store at"):
        open_store(f"{two.root} + {tmp_path / 'nowhere'}")


def test_store__of_parts_makes_no_column_of_its_own(two):
    with pytest.raises(DenseCLIError, match="several stores"):
        two.add_column("regions", "x", {})


def test_gc__is_of_one_store_and_knows_runs_on_several(two, tmp_path):
    with pytest.raises(DenseCLIError, match="several stores"):
        garbage(two, runs=str(tmp_path / "runs"), min_age=0)
    part = two.parts[0]
    made(Path(part.root), 0, [3, 2], teacher="unused")
    (tmp_path / "runs" / "one").mkdir(parents=True)
    columns = [part.find("targets", "t").key, "another part's"]
    config = {"columns": {"labels": two.find("targets", "t").key}, "part_columns": columns}
    (tmp_path / "runs" / "one" / "config.json").write_text(json.dumps(config))
    found = garbage(part, runs=str(tmp_path / "runs"), min_age=0)
    assert [Path(item.url).name.partition("-")[0] for item in found] == ["unused"]


def test_parts__fan_out_and_are_opened_by_their_store(two, tmp_path):
    assert part_url("s", 123) == "s/parts/000/000123"
    assert part_url("s", 1_234_567) == "s/parts/1234/1234567"
    root = tmp_path / "parted"
    for part in range(2):
        made(root / "parts" / "000" / f"{part:06d}", 10 * part, [2])
    write_parts(
        str(root), {"format": 1, "dataset": {"name": "n", "split": ""}, "tars_per_part": 1, "parts": 2}
    )
    assert [record.key for record in open_store(root).samples()] == ["k0", "k1", "k10", "k11"]
    with pytest.raises(DenseCLIError, match="has parts") as caught:
        Store.open(root)
    assert "parts/000/000000" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format": 1}', b'{"format": 2, "parts": 1}'])
def test_parts__a_damaged_description_is_refused(tmp_path, data):
    (tmp_path / "parts.json").write_bytes(data)
    with pytest.raises(DenseCLIError, match="does not describe the parts"):
        read_parts(str(tmp_path))


def test_shard_names__of_a_billion_photos_are_made_when_asked_for():
    names = ShardNames([2_500] * 1_563)
    assert (len(names), names[0], names[-1], names[2_500]) == (
        3_907_500,
        "0/000000",
        "1562/002499",
        "1/000000",
    )
    assert names[2_499:2_501] == ["0/002499", "1/000000"]
    with pytest.raises(IndexError):
        names[len(names)]
