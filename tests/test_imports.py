"""The import rule, in every file.

commands -> pipeline | train | evaluation | ablation -> models -> shards -> core. scenes is a plug-in: no room
imports it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MIDDLE = ("pipeline", "train", "evaluation", "ablation")
BELOW: dict[str, set[str]] = {
    "core": set(),
    "shards": {"core"},
    "models": {"core", "shards"},
    **{room: {"core", "shards", "models"} for room in MIDDLE},
    "commands": {"core", "shards", "models", *MIDDLE},
}
# Of other packages: what a store is read without, and what a training does without.
WITHOUT = {
    "shards": {"torch", "ray", "click"},
    **{room: {"ray"} for room in ("models", "train", "evaluation")},
}


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it; `from densecli import shards` is densecli.shards."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", BELOW)
def test_imports__only_of_rooms_below(room: str) -> None:
    allowed = {room, *BELOW[room]}
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            package, _, rest = name.partition(".")
            assert package not in WITHOUT.get(room, set()), f"{file} imports {name}"
            assert package != "densecli" or rest.partition(".")[0] in allowed, f"{file} imports {name}"
