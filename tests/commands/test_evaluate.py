"""densecli evaluate, from the command line."""

from pathlib import Path

from command_line import refused


def test_evaluate__unfinished_run(tmp_path: Path) -> None:
    assert "densecli train" in refused("evaluate", "--data", tmp_path, "--run", tmp_path)
