"""densecli train, from the command line."""

from pathlib import Path

import pytest
from command_line import refused
from finished_run import finished_run

from densecli.commands.options import Options
from densecli.commands.train import show_result
from densecli.train.early_warnings import SHORT


def test_train__no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "build-shards" in refused("train")
    assert str(tmp_path / "gone") in refused("train", "--store", tmp_path / "gone")


def test_train__ends_with_a_page_of_its_curves_if_there_are_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, steps in (("tried", SHORT - 1), ("trained", SHORT)):
        show_result(Options(given={}), finished_run(tmp_path / name, steps), ["densecli evaluate"])
        page = tmp_path / name / "report.html"
        said = capsys.readouterr().out
        assert page.is_file() == (f"Report: {page}" in said) == (name == "trained")
        assert "Next:\n  densecli evaluate" in said
