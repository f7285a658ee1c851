"""Paths and addresses as people write them."""

from pathlib import Path

import pytest

from densecli.core.addresses import expanded, from_environment


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
