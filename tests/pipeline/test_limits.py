"""Limits of the system: refused before Ray starts, whose processes would end without a word."""

import resource
import threading
from types import SimpleNamespace

import pytest

from densecli.core.errors import DenseCLIError
from densecli.pipeline import limits
from densecli.pipeline.cluster import connected


def test_limits__enough_of_everything() -> None:
    before = threading.active_count()
    limits.check_limits(1)
    assert threading.active_count() == before


def test_limits__too_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    start, left = threading.Thread.start, iter(range(7))

    def limited(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(DenseCLIError, match=r"Only 7 more .* needs about 300 with --workers 3") as caught:
        limits.check_limits(3)
    assert "ulimit -u" in caught.value.hint and "--workers" in caught.value.hint


def test_limits__too_little_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3 * 2**30, -1))
    with (
        pytest.raises(DenseCLIError, match=r"may have 3\.0 GB of address space") as caught,
        connected(None, 1),
    ):
        pass
    assert "ulimit -v" in caught.value.hint


def test_limits__a_full_temporary_folder(tmp_path) -> None:
    limits.check_room(str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=65536))
        with pytest.raises(DenseCLIError, match=r"has room for 0\.1 MB") as caught, connected(None, 1):
            pass
    assert "TMPDIR" in caught.value.hint


def test_connected__no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("densecli.pipeline.cluster.TemporaryDirectory", full)
    with pytest.raises(DenseCLIError, match="No space left on device") as caught, connected(None, 1):
        pass
    assert "TMPDIR" in caught.value.hint
