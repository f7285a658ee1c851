"""densecli train, from the command line."""

import json
from pathlib import Path

import pytest
from command_line import refused
from finished_run import finished_run

from densecli.commands.options import Options
from densecli.commands.train import after_training, show_result
from densecli.shards.store import Store
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


def test_train__the_next_commands_load_its_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.create(str(tmp_path / "store"), {"name": "folder", "split": "train"}, 96, [1])
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"store": store.root}))
    monkeypatch.setenv("DENSECLI_PLUGINS", "")
    assert not any("--plugin" in line for line in after_training({"run": str(run)}))
    plugin = tmp_path / "a_students_plugin.py"
    plugin.write_text("")
    monkeypatch.setenv("DENSECLI_PLUGINS", str(plugin))
    lines = after_training({"run": str(run)})
    assert len(lines) == 3 and all(line.endswith(f" --plugin {plugin}") for line in lines)
