"""densecli train, from the command line."""

from pathlib import Path

import pytest
from command_line import refused


def test_train__no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "build-shards" in refused("train")
    assert str(tmp_path / "gone") in refused("train", "--store", tmp_path / "gone")
