"""What gc may delete, and what it leaves alone."""

import json
import os
import re
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards import gc
from densecli.shards.gc import delete
from densecli.shards.lint import lint
from densecli.shards.receipt_totals import publish
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
        publish(column)
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


def test_garbage__a_date_in_the_future_protects_no_leftover(store):
    stray = Path(store.images.url, ".000000.tar.77.tmp")
    stray.write_bytes(b"12")
    for years, found in ((30, 1), (0, 0)):
        then = time.time() + years * 3e7 + 60
        os.utime(stray, (then, then))
        assert len(garbage(store, runs="nowhere", min_age=3600)) == found


def test_garbage__only_leftovers(store, runs):
    Path(store.images.url, ".000000.tar.77.tmp").write_bytes(b"12")
    found = garbage(store, runs=runs(store.find("targets", "a")), min_age=0, leftovers=True)
    assert [Path(item.url).name for item in found] == [".000000.tar.77.tmp"]


@pytest.mark.parametrize("files", [0, 1, 2])
def test_delete__ended_in_the_middle_it_goes_on_the_next_time(store, runs, monkeypatch, files):
    where = runs(store.find("targets", "a"))
    remove, left = fs.remove, iter(range(files))

    def killed(url):
        if next(left, None) is None:
            raise KeyboardInterrupt
        remove(url)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "remove", killed)
        patch.setattr(fs, "remove_folder", lambda url: killed(""))
        with pytest.raises(KeyboardInterrupt):
            delete(garbage(store, runs=where, min_age=3600))
    # What is left is whole, or an unfinished column: nothing is read from it.
    assert all(
        re.search("not finished|has no (receipt|manifest)", finding.trouble) for finding in lint(store)
    )
    delete(garbage(store, runs=where, min_age=0))
    assert [c.name for c in store.columns()] == ["grid-paper", "a"] and list(lint(store)) == []


@pytest.mark.parametrize("content", ["", "[]", '{"columns": []}', '{"columns": {"labels": 1}}', "[" * 9999])
def test_garbage__a_damaged_configuration_of_a_run_is_a_sentence(store, runs, content):
    folder = Path(runs(store.find("targets", "a")))
    (folder / "one" / "config.json").write_text(content)
    with pytest.raises(DenseCLIError, match=r"one/config\.json is damaged"):
        garbage(store, runs=str(folder), min_age=0)


def test_delete__what_may_not_be_written_is_a_sentence(store, monkeypatch):
    Path(store.images.url, ".000000.tar.77.tmp").write_bytes(b"12")

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.rm_file", forbidden)
    with pytest.raises(DenseCLIError, match=r"Could not delete .*77\.tmp: Permission denied") as caught:
        delete(garbage(store, runs="nowhere", min_age=0))
    assert "may write" in caught.value.hint
