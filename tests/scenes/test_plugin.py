"""The generated world is a plug-in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
# Python reads it at its start: in the commands and in Ray's workers.
WITHOUT_SCENES = """
import importlib.metadata, sys
found = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **which: () if which == {"group": "densecli"} else found(**which)
sys.modules["densecli.scenes"] = None
"""


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300, check=False
    )


def test_scenes__registering_them_loads_neither_torch_nor_ray_nor_a_picture() -> None:
    words = (
        "import sys; from densecli.shards.datasets import DATASETS; print(list(DATASETS), DATASETS['scenes'])"
    )
    result = run("-c", f"{words}; assert not {{'torch', 'ray', 'PIL', 'click'}} & set(sys.modules)")
    assert result.returncode == 0, result.stderr
    assert "scenes" in result.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_scenes__where_they_are_not_installed_photos_are_listed_built_and_trained_on(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_SCENES)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b", "c"):
        pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")

    def densecli(command: str, *words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "densecli", command, *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    kinds = json.loads(densecli("list", "--json", "-"))
    assert "datasets" in kinds
    for kind in ("datasets", "commands"):
        assert "scenes" not in densecli("list", kind) and "demo" not in densecli("list", kind)
    tiny = ("--plugin", EXAMPLES / "backbone.py", "--weights", "tiny-vit=random:0", "--device", "cpu")
    densecli(
        "build-shards", "--dataset", "folder", "--data", "photos", "--canvas", 96, "--views", 1,
        "--teacher", "crops-tiny-vit", "--store", "store", *tiny,
    )  # fmt: skip
    densecli(
        "train", "--store", "store", "--student", "tiny-vit", "--method", "clipself", "--run", "run",
        "--batch-size", 2, "--max-steps", 1, *tiny,
    )  # fmt: skip
    assert list((tmp_path / "run" / "export").glob("*.safetensors"))
