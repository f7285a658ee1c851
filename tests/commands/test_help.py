"""--help of the commands."""

import pytest
from command_line import passed


@pytest.mark.parametrize("command", ["build-shards", "train", "evaluate", "ablate", "categories", "demo"])
def test_help__has_an_example(command: str) -> None:
    assert f"densecli {command} --" in passed(command, "--help")
