"""The Refiner from the command line: trained, asked as a teacher, followed by every method that reads it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here
from click.testing import CliRunner

from densecli.cli import main
from densecli.pipeline.config import BuildConfig
from densecli.scenes.coco import write_coco

pytestmark = pytest.mark.ray


def passed(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of scenes with a Refiner's column and those that its methods read beside it."""
    folder = tmp_path_factory.mktemp("refined")
    settings = BuildConfig(
        dataset="scenes", limit=8, shard_size=4, store=str(folder / "store"), views=2, side=3, device="cpu"
    )
    build_here(replace(settings, teachers=("scenes-pvlm", "crops-scenes-s")))
    before = contents(folder / "store")
    passed("train-refiner", "--store", folder / "store", "--run", folder / "refiner", "--max-steps", 2,
           "--batch-size", 4)  # fmt: skip
    weights = {"refiner-scenes-s": str(folder / "refiner" / "export" / "refiner.safetensors")}
    build_here(replace(settings, teachers=("refiner-scenes-s",), weights=weights))
    after = contents(folder / "store")
    assert len(after) > len(before) and {path: after[path] for path in before} == before
    return folder


def contents(store: Path) -> dict[Path, tuple]:
    files = [path for path in store.rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("method", ["r-sc-clipself", "r-sc-regiontext", "r-sc-v"])
def test_methods__train_from_the_refined_column(folder: Path, tmp_path: Path, method: str) -> None:
    run = tmp_path / "run"
    passed("train", "--store", folder / "store", "--method", method, "--run", run, "--max-steps", 2,
           "--batch-size", 4, "--lr", 1e-3)  # fmt: skip
    first, second = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert first["spatial:refined"] != second["spatial:refined"]
    assert json.loads((run / "config.json").read_text())["columns"].keys() >= {"refined"}
    assert (run / "export" / "student.safetensors").exists()


def test_train__the_hint_names_commands_that_make_the_column(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build_here(BuildConfig(dataset="scenes", limit=4, store="store"))
    result = CliRunner().invoke(main, ["train", "--store", "store", "--method", "r-sc-v"])
    assert result.exit_code == 1 and "has no refined column" in result.output
    commands = result.output.split("Make it:\n")[1].splitlines()
    assert len(commands) == 2
    train, build_shards = (command.split()[1:] for command in commands)
    passed(*train, "--max-steps", 1, "--batch-size", 4)
    assert "refiner-scenes-s-" in passed(*build_shards, "--dry-run")


def test_evaluate__coupling_of_a_clip_and_its_refiner(folder: Path, tmp_path: Path) -> None:
    write_coco(tmp_path / "data", seed=0, split="val", count=4)
    file = folder / "refiner" / "export" / "refiner.safetensors"
    output = passed("evaluate", "--coupling", "--student", "scenes-s", "--refiner", file, "--data",
                    tmp_path / "data", "--split", "val", "--categories", "scenes", "--canvas", 96,
                    "--json", tmp_path / "coupling.json")  # fmt: skip
    ratios = json.loads((tmp_path / "coupling.json").read_text())
    assert list(ratios) == ["scenes-s", f"its Refiner, {file}"]
    names = ("coupling_ratio_mean", "coupling_ratio_median", "cross_segment_similarity")
    assert all(f"{each[name]:.3f}" in output for each in ratios.values() for name in names)
    assert all(-1 < each["cross_segment_similarity"] < 1 for each in ratios.values())
    assert len({each["coupling_ratio_median"] for each in ratios.values()}) == 2
