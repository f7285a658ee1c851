"""Paths and addresses as people write them."""

from pathlib import Path

import pytest

from densecli.core.addresses import expanded, from_environment, shown


def test_expanded__a_leading_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x") == f"{tmp_path}/x" and expanded("~") == str(tmp_path)
    assert [expanded(path) for path in ("a~/x", "s3://b/~/x", "-", "./~")] == [
        "a~/x",
        "s3://b/~/x",
        "-",
        "./~",
    ]
    assert expanded(Path("~/x")) == f"{tmp_path}/x"


def test_from_environment__a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, expected in (("~/x", f"{tmp_path}/x"), ("", f"{tmp_path}/y"), ("x", "x")):
        monkeypatch.setenv("DENSECLI_DATA", value)
        assert from_environment("DENSECLI_DATA", "~/y") == expected


def test_shown__a_path_below_the_working_folder_is_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown(f"{tmp_path}/here/stores/a") == shown("stores/a") == "stores/a"
    for elsewhere in (f"{tmp_path}/stores", f"{tmp_path}/here2", "s3://bucket/stores"):
        assert shown(elsewhere) == elsewhere
