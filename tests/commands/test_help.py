"""--help of the commands."""

import pytest
from command_line import passed


@pytest.mark.parametrize("verb", ["build-shards", "train", "evaluate", "ablate", "categories", "demo"])
def test_help__has_an_example(verb: str) -> None:
    assert f"densecli {verb} --" in passed(verb, "--help")
