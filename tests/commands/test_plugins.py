"""Plug-ins that bring commands."""

from pathlib import Path

import pytest
from command_line import passed, refused

from densecli.cli import COMMANDS


def plugin(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plug-in whose command is forgotten when the test ends."""
    monkeypatch.setenv("DENSECLI_PLUGINS", "")
    # Those that are installed are loaded once, and stay.
    COMMANDS.load()
    for attribute in ("_entries", "_values"):
        monkeypatch.setattr(COMMANDS, attribute, dict(getattr(COMMANDS, attribute)))
    path = folder / f"{name}.py"
    path.write_text(f"from densecli.core.registry import registry\nimport click\n{text}\n")
    return path


GREET = """
@registry("commands").register("{name}", help="Says hello.")
@click.command()
def greet():
    click.echo("hello")
"""


def test_plugin__before_a_command_that_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin(tmp_path, "greeting_command", GREET.format(name="greet"), monkeypatch)
    assert "No such command 'greet'" in refused("greet", code=2)
    assert passed("--plugin", path, "greet") == "hello\n"
    assert "greet" in passed("--help")


def test_failure__of_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of standard output, which has no name."""
    text = GREET.format(name="fill").replace('click.echo("hello")', "raise OSError(28, 'No space left')")
    path = plugin(tmp_path, "filling_command", text, monkeypatch)
    assert "Error: No space left.\nHint: Make room." in refused("--plugin", path, "fill")


def test_failure__of_the_file_system_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a working folder that may only be read."""
    text = GREET.format(name="save").replace('click.echo("hello")', "open('/proc/no-such-file', 'w')")
    path = plugin(tmp_path, "saving_command", text, monkeypatch)
    assert "/proc/no-such-file: No such file or directory." in refused("--plugin", path, "save")


def test_plugin__may_not_hide_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin(tmp_path, "train_command", GREET.format(name="train"), monkeypatch)
    output = refused("--plugin", path, "train")
    assert "train_command.py" in output and "called 'train'" in output


def test_plugin__a_broken_one_is_told_by_the_help_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugin(tmp_path, "broken_command", "raise Warning('odd')", monkeypatch)
    monkeypatch.setenv("DENSECLI_PLUGINS", str(path))
    for words in (["--help"], ["list", "commands"]):
        assert "Warning: odd" in refused(*words)
