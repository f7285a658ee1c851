"""The import rule, in every file: cli -> pipeline | train | evaluation -> models -> shards."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MIDDLE = ("pipeline", "train", "evaluation")
BELOW = {"shards": set(), "models": {"shards"}, **{package: {"models", "shards"} for package in MIDDLE}}
# Of other packages: what a store is read without, and what a training does without.
WITHOUT = {"shards": {"torch", "ray"}, "models": {"ray"}, "train": {"ray"}, "evaluation": {"ray"}}


def imported(file: Path) -> Iterator[str]:
    """The top-level packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", BELOW)
def test_imports__only_of_packages_below(package: str) -> None:
    refused = {"cli", *BELOW} - {package} - BELOW[package] | WITHOUT.get(package, set())
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert not [(file.name, name) for file in files for name in imported(file) if name in refused]
