"""A build inside a user's own repository, whose files have the names of our rooms and of our libraries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOMS = ("train", "pipeline", "shards", "cli", "evaluation", "core", "commands", "scenes", "ablation")
LIBRARIES = ("random", "numpy", "click", "yaml", "torch", "ray", "tqdm", "PIL", "json", "fsspec", "densecli")
BUILD = (
    *("build-shards", "--dataset", "scenes", "--limit", "4", "--shard-size", "2", "--device", "cpu"),
    *("--teacher", "scenes-s", "--weights", "scenes-s=random:0", "--store", "store"),
)


def repository(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder whose modules end whoever imports them."""
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "__init__.py").write_text("raise ImportError('not these models')\n")
    for name in names:
        (folder / f"{name}.py").write_text(f"raise SystemExit('not this {name}')\n")
    return folder


@pytest.mark.parametrize("search_path", [None, ".", "absolute"])
def test_build__in_a_folder_with_modules_of_the_same_names(tmp_path, search_path):
    # What is on PYTHONPATH hides libraries for every Python program; there, the names of our rooms must do.
    names = ROOMS if search_path else (*ROOMS, *LIBRARIES)
    folder = repository(tmp_path / "theirs", names)
    path = {"PYTHONPATH": str(folder) if search_path == "absolute" else search_path} if search_path else {}
    before = set(os.listdir(folder))
    # -P: as the console script starts, without the working folder on the path of the command itself.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "densecli", *BUILD],
        cwd=folder,
        check=False,
        env={**{n: v for n, v in os.environ.items() if n != "PYTHONPATH"}, **path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "built, 4 photos" in done.stdout
    made = set(os.listdir(folder)) - before - {"__pycache__"}
    assert made == {"store"}
