"""What gc may delete, and what it leaves alone."""

import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from densecli.core.errors import DenseCLIError
from densecli.shards import gc
from densecli.shards.gc import delete
from densecli.shards.lint import lint
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter, npz_bytes

garbage = partial(gc.garbage, min_age=3600)


def age(root, hours):
    then = time.time() - hours * 3600
    for path in Path(root).rglob("*"):
        os.utime(path, (then, then))


@pytest.fixture
def store(tmp_path):
    """Two region plans; `a` and `b` speak of one each, `map` of any boxes. All of it two hours old."""
    store = Store.create(tmp_path / "store", {"name": "x"}, 64, [1])
    plans = [store.add_column("regions", name, {}) for name in ("grid-paper", "grid-clipself")]
    targets = [
        store.add_column("targets", name, {"regions": plan.key})
        for name, plan in zip("ab", plans, strict=True)
    ]
    for column in (store.images, *plans, *targets, store.add_column("targets", "map", {})):
        writer = ShardWriter(column, "000000")
        writer.add("k", {"npz": npz_bytes({"x": np.arange(9)})})
        writer.commit()
    age(store.root, 2)
    return store


@pytest.fixture
def runs(tmp_path):
    def named(*columns, regions=None):
        folder = tmp_path / "runs" / "one"
        folder.mkdir(parents=True, exist_ok=True)
        config = {"columns": {c.name: c.key for c in columns}, "regions": regions}
        (folder / "config.json").write_text(json.dumps(config))
        (tmp_path / "runs" / "notes.txt").write_text("")
        return str(tmp_path / "runs")

    return named


def names(items):
    return sorted(Path(item.url).name.rsplit("-", 1)[0] for item in items if item.column)


def test_garbage__runs_of_an_ablation_name_their_columns_too(store, runs):
    folder = Path(runs(store.find("targets", "a")))
    deeper = folder / "ablate-theta" / "theta-0.1"
    deeper.mkdir(parents=True)
    config = {"columns": {"labels": store.find("targets", "b").key}, "regions": None}
    (deeper / "config.json").write_text(json.dumps(config))
    assert "b" not in names(garbage(store, runs=str(folder)))
    (deeper / "config.json").unlink()
    assert "b" in names(garbage(store, runs=str(folder)))


def test_garbage__columns_that_no_run_names_with_their_regions(store, runs):
    found = garbage(store, runs=runs(store.find("targets", "a")))
    (clipself,) = [c for c in store.columns("regions") if c.name == "grid-clipself"]
    assert {item.url for item in found} == {
        store.find("targets", "b").url,
        store.find("targets", "map").url,
        clipself.url,
    }
    assert all(item.bytes > 10240 for item in found)


def test_garbage__kept_by_name(store, runs):
    assert names(garbage(store, runs=runs(store.find("targets", "a")), keep=["b"])) == ["map"]
    with pytest.raises(DenseCLIError, match="no targets columns named 'c'"):
        garbage(store, runs="nowhere", keep=["c"])


def test_garbage__no_column_where_none_is_named(store, tmp_path):
    assert garbage(store, runs=str(tmp_path / "nowhere")) == []


def test_garbage__a_map_keeps_the_plan_of_its_run_or_all_of_them(store, runs):
    mapped = store.find("targets", "map")
    urls = {item.url for item in garbage(store, runs=runs(mapped))}
    assert urls == {store.find("targets", "a").url, store.find("targets", "b").url}
    assert len(garbage(store, runs=runs(mapped, regions="grid-paper"))) == 3


def test_garbage__what_is_young_is_left_alone(store, runs):
    where = runs(store.find("targets", "a"))
    stray = Path(store.images.url, ".000000.tar.77.tmp")
    stray.write_bytes(b"12")
    os.utime(Path(store.find("targets", "b").url, "000000.tar"))
    found = garbage(store, runs=where)
    assert store.find("targets", "b").url not in {item.url for item in found} and len(found) == 2
    (temporary,) = [i for i in garbage(store, runs=where, min_age=0) if not i.column]
    assert (temporary.url, temporary.bytes) == (str(stray), 2)


def test_delete__leaves_a_sound_store(store, runs):
    Path(store.root, "index", "sa1b").mkdir(parents=True)
    for name in (".store.json.77.tmp", "index/sa1b/.7.npz.77.tmp", "index/sa1b/7.npz"):
        Path(store.root, name).write_bytes(b"")
    age(store.root, 2)
    delete(garbage(store, runs=runs(store.find("targets", "a"))))
    assert [c.name for c in store.columns()] == ["grid-paper", "a"]
    assert [path.name for path in Path(store.root, "index", "sa1b").iterdir()] == ["7.npz"]
    assert list(lint(store)) == []
