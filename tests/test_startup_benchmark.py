"""What benchmarks/startup.py counts: a start costs as many requests for more shards."""

import importlib.util
from pathlib import Path

import pytest

from densecli.core import fs

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "startup.py"


@pytest.fixture
def startup(monkeypatch):
    for patched in ("_get_once", "_listing", "_names", "file", "is_local"):
        monkeypatch.setattr(fs, patched, getattr(fs, patched))
    spec = importlib.util.spec_from_file_location("startup_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("what", "most"), [("train", 8), ("info", 11), ("find", 4), ("rank", 0)])
def test_startup__requests_do_not_grow_with_the_shards(startup, monkeypatch, tmp_path, what, most):
    counts = []
    for shards in (3, 30):
        startup.fabricate(tmp_path / str(shards), shards, 2)
        with monkeypatch.context() as patch:
            for patched in ("_get_once", "_listing", "_names", "file", "is_local"):
                patch.setattr(fs, patched, getattr(fs, patched))
            counts.append(startup.measure(what, str(tmp_path / str(shards)))["requests"])
    assert counts[0] == counts[1] <= most


def test_startup__before_there_is_a_request_for_each_shard(startup, tmp_path):
    store = startup.fabricate(tmp_path / "store", 30, 2)
    startup.set_aside(store)
    assert startup.measure("train", store.root)["requests"] >= 30
    startup.put_back(store)
