import errno
import os

import pytest

from shards import fs
from shards.errors import DenseCLIError


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def test_write_atomic__makes_folders_and_replaces(root):
    url = fs.join(root, "a", "b", "file")
    assert not fs.exists(url)
    assert fs.listdir(fs.join(root, "a", "b")) == []
    for content in (b"first", b"second, longer", b""):
        fs.write_atomic(url, memoryview(content))
        assert fs.read_bytes(url) == content
    assert fs.listdir(fs.join(root, "a", "b")) == ["file"]
    fs.remove(url)
    assert not fs.exists(url)
    with pytest.raises(FileNotFoundError):
        fs.read_bytes(url)


def test_listdir__sorted_names_without_leftovers(root):
    for name in ("b.tar", "a.json", ".a.json.0123.tmp", "folder/x"):
        fs.write_atomic(fs.join(root, name), b"x")
    assert fs.listdir(root) == ["a.json", "b.tar", "folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_write_atomic__a_failure_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, step):
    url = str(tmp_path / "file")
    fs.write_atomic(url, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(DenseCLIError, match="No space left") as caught:
        fs.write_atomic(url, b"new")
    assert "Free some space" in caught.value.hint
    assert os.listdir(tmp_path) == ["file"]
    assert fs.read_bytes(url) == b"old"


def test_write_atomic__is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    for step in ("fsync", "replace"):
        real = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *a, step=step, real=real: (steps.append(step), real(*a))[1])
    fs.write_atomic(str(tmp_path / "file"), b"x")
    assert steps == ["fsync", "replace", "fsync"]


def test_write_atomic__where_nothing_can_be_written_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DenseCLIError, match="Could not write") as caught:
        fs.write_atomic(str(tmp_path / "file" / "below"), b"x")
    assert "may write" in caught.value.hint


def test_error__keeps_its_hint_across_processes():
    import pickle

    error = pickle.loads(pickle.dumps(DenseCLIError("What.", hint="Do.")))
    assert (str(error), error.hint) == ("What.", "Do.")
