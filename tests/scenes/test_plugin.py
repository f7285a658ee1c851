"""The generated world is a plug-in: densecli works without it, and a stranger's plug-in works as it does."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "shards", "models", "pipeline", "train", "evaluation", "ablation", "commands")

WITHOUT_SCENES = """
import densecli.core.registry
densecli.core.registry.entry_points = lambda group: []
from densecli.cli import main
main()
"""

MINE = '''
"""A data set of one colour for each photo, as a repository of its own would register it."""

from PIL import Image

from densecli.pipeline.sources import Decoded, Item, Source, SourceRequest
from densecli.shards.datasets import DATASETS, Dataset


class Paint:
    def __call__(self, item, canvas):
        return Decoded(Image.new("RGB", (64, 48), (int(item.ref), 100, 200)), 64, 48)


def colours(request: SourceRequest) -> Source:
    items = [Item(f"colour-{i}", str(10 * i)) for i in range(request.limit or 4)]
    return Source(name="mine", split=request.split, digest="0" * 64, items=items, load=Paint())


DATASETS.add("mine", Dataset(source=colours, canvas=32, generated=True), help="Photos of one colour.")
'''


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return folder


def test_scenes__no_other_file_names_them() -> None:
    files = [ROOT / "cli.py", *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and "densecli.scenes" in (node.module or "")), file
            assert not (isinstance(node, ast.Constant) and str(node.value).startswith("scenes")), file


def test_scenes__registering_them_loads_neither_torch_nor_ray_nor_a_picture() -> None:
    words = (
        "import sys; from densecli.shards.datasets import DATASETS; print(list(DATASETS), DATASETS['scenes'])"
    )
    result = run("-c", f"{words}; assert not {{'torch', 'ray', 'PIL', 'click'}} & set(sys.modules)")
    assert result.returncode == 0, result.stderr
    assert "scenes" in result.stdout


def test_without_scenes__they_are_unknown_and_the_rest_works(photos: Path, tmp_path: Path) -> None:
    refused = run("-c", WITHOUT_SCENES, "build-shards", "--dataset", "scenes", "--store", tmp_path / "none")
    assert refused.returncode == 1 and "no data set called 'scenes'" in refused.stderr
    assert "demo" not in run("-c", WITHOUT_SCENES, "--help").stdout

    built = run(
        "-c", WITHOUT_SCENES, "build-shards", "--dataset", "folder", "--data", photos, "--canvas", 64,
        "--teacher", "crops-vit-b16", "--weights", "vit-b16=random:0", "--views", 1, "--device", "cpu",
        "--store", tmp_path / "store",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    trained = run(
        "-c", WITHOUT_SCENES, "train", "--store", tmp_path / "store", "--run", tmp_path / "run",
        "--method", "clipself", "--student", "vit-b16", "--weights", "vit-b16=random:1", "--batch-size", 2,
        "--max-steps", 1, "--device", "cpu",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert list((tmp_path / "run" / "export").iterdir())


def test_plugin__a_stranger_s_data_set_is_built_by_ray(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    words = ("-m", "densecli", "build-shards", "--dataset", "mine", "--plugin", tmp_path / "mine.py")
    result = run(*words, "--store", tmp_path / "store", "--limit", 3, "--json", tmp_path / "out.json")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out.json").read_text())["samples"] == 3
    store = json.loads((tmp_path / "store" / "store.json").read_text())
    assert store["dataset"]["name"] == "mine" and store["canvas"] == 32
