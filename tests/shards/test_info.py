"""What info adds up from the receipts."""

from pathlib import Path

import numpy as np
import pytest

from densecli.shards.info import combined, describe, parts_text, report
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter, npz_bytes


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store", {"name": "x", "split": "val"}, 64, [3, 2])
    target = store.add_column("targets", "v", {}, {"random_weights": True})
    for column, shards in ((store.images, store.shard_names), (target, ["000000"])):
        for i, shard in enumerate(shards):
            writer = ShardWriter(column, shard)
            for n in range(2 - i):
                writer.add(f"{shard}-{n}", {"npz": npz_bytes({"x": np.arange(9)})})
            writer.commit(
                seconds={"decode": 1.0, "teacher": 2.0},
                skipped={"empty": 1},
                error={"max_tv": 0.1 * (i + 1), "mean_tv": 0.01 * (i + 1)},
            )
    return store


def test_describe__adds_up_shards(store):
    done = []
    kept = Path(store.root, "index", "sa1b", "7.npz")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"12345")
    described = describe(store, done.append)
    assert described["index_bytes"] == 5
    images, target = described["columns"]
    assert sum(done) == 4
    assert (images["samples"], images["shards"], images["missing"]) == (3, 2, 0)
    assert (target["samples"], target["shards"], target["missing"]) == (2, 2, 1)
    assert images["seconds"]["decode"] == 2 and images["seconds"]["total"] >= 6
    assert images["images_per_second"] == pytest.approx(3 / images["seconds"]["total"], abs=0.01)
    # The worst shard, and the mean over samples: two of 0.01 and one of 0.02.
    assert images["error"]["max_tv"] == pytest.approx(0.2)
    assert images["error"]["mean_tv"] == pytest.approx(0.04 / 3)
    assert described["skipped"] == {"empty": 3} and not described["complete"]
    on_disk = sum(path.stat().st_size for path in Path(store.root).rglob("*") if path.is_file())
    assert described["bytes"] == on_disk


def test_report__names_columns_stages_and_reasons(store):
    printed = report(describe(store))
    for word in ("v-", "(random weights)", "1/2", "teacher", "3 empty", "not finished", "max_tv 0.1"):
        assert word in printed


def test_combined__adds_up_parts_and_counts_what_a_part_lacks(store, tmp_path):
    other = Store.create(tmp_path / "other", {"name": "x", "split": "val"}, 64, [1])
    writer = ShardWriter(other.images, "000000")
    writer.add("a", {"npz": npz_bytes({"x": np.arange(9)})})
    writer.commit(seconds={"decode": 4.0}, skipped={"empty": 2, "cut": 1})
    parts = [describe(store), describe(other)]
    both = combined("both", parts)
    images, target = both["columns"]
    assert (images["samples"], images["shards"], images["missing"], images["id"]) == (4, 3, 0, "")
    # The other store has no such column, so its shard is missing too.
    assert (target["samples"], target["shards"], target["missing"]) == (2, 3, 2)
    assert target["error"] == parts[0]["columns"][1]["error"]
    assert images["seconds"]["decode"] == 6 and both["skipped"] == {"empty": 5, "cut": 1}
    assert images["images_per_second"] == pytest.approx(4 / images["seconds"]["total"], abs=0.01)
    assert both["bytes"] == sum(part["bytes"] for part in parts)
    assert both["planned"] == 6 and not both["complete"]
    assert report(both).startswith("both: x val, canvas 64, 6 photos planned in 3 shards")
    assert parts_text(parts).startswith(f"2 stores, not finished: {store.root}.")


def test_combined__of_one_store_is_that_store(store):
    alone = describe(store)
    both = combined(store.root, [alone])
    for column in alone["columns"]:
        column["id"] = ""
    assert report(both) == report(alone)
