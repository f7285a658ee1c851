"""densecli list: every kind has names, each with a line, and says what is missing here."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from densecli.cli import main
from densecli.commands.list import KINDS
from densecli.core import registry


def listed(*words: str) -> dict:
    done = CliRunner().invoke(main, ["list", *words, "--json", "-"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_list__names_the_kinds() -> None:
    assert listed().keys() == KINDS.keys()


def test_list__shows_every_kind_that_is_read() -> None:
    assert sorted(KINDS) == sorted(registry.KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_list__has_a_line_for_every_name(kind: str) -> None:
    names = listed(kind)["names"]
    assert names and all(each["name"] and each["help"] for each in names)


def test_list__says_which_weights_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    (tmp_path / "dinov2-vits14.pth").touch()
    missing = {each["name"]: each["missing"] for each in listed("vfms")["names"]}
    assert missing["dinov2-vitb14"] == "weights not found" and not missing["dinov2-vits14"]
    assert not missing["scenes-vfm"]


def test_list__an_unknown_kind_suggests_the_nearest() -> None:
    done = CliRunner().invoke(main, ["list", "methds"])
    assert done.exit_code == 1 and "methods" in done.output
