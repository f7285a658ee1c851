"""The examples of extensions, each loaded from its file by the command that its README names."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"
Command = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def densecli(folder: Path) -> Command:
    """Runs densecli in `folder` with the examples of these names as plug-ins; returns what it printed."""

    def run(*words: object, plugins: tuple[str, ...]) -> str:
        command, *rest = map(str, words)
        loaded = [word for name in plugins for word in ("--plugin", str(EXAMPLES / f"{name}.py"))]
        environment = {name: value for name, value in os.environ.items() if name != "DENSECLI_PLUGINS"}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "densecli", command, *loaded, *rest],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return run


@pytest.fixture(scope="module")
def store(densecli: Command, folder: Path) -> Path:
    """Four scenes with the columns of two example teachers and of two teachers of ours, built by Ray."""
    teachers = ("colours-p12", "signs-scenes-s", "crops-scenes-s", "scenes-pvlm")
    words = [word for name in teachers for word in ("--teacher", name)]
    densecli(
        "build-shards", "--dataset", "scenes", "--limit", 4, *words, "--views", 1, "--store", "store",
        "--device", "cpu",
        plugins=("teacher", "codec"),
    )  # fmt: skip
    return folder / "store"


@pytest.fixture
def train(densecli: Command, store: Path) -> Callable[..., list[dict]]:
    """A training of two steps; returns its metrics."""

    def run(name: str, *words: object, plugins: tuple[str, ...]) -> list[dict]:
        densecli(
            "train", "--store", store, "--run", name, "--batch-size", 2, "--max-steps", 2, "--device", "cpu",
            *words,
            plugins=plugins,
        )  # fmt: skip
        lines = (store.parent / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return run


@pytest.mark.slow
def test_teacher__a_student_learns_from_a_new_kind_of_target(train):
    rows = train("colours", "--loss", "spatial:colours=1", plugins=("teacher", "codec"))
    assert len(rows) == 2 and all(row["spatial:colours"] > 0 for row in rows)


@pytest.mark.slow
def test_codec__a_student_learns_from_one_bit_a_number(train, densecli, store):
    bits = train("signs", "--loss", "region_cosine:signs=1", plugins=("teacher", "codec"))
    exact = train("crops", "--loss", "region_cosine:crops=1", plugins=("teacher", "codec"))
    [column] = (store / "targets").glob("signs-*")
    error = json.loads((column / "000000.json").read_bytes())["error"]
    assert 0 < error["mean_cosine"] < 0.5
    # The sign of each number keeps the direction, less some of the cosine.
    assert abs(bits[0]["region_cosine:signs"] - exact[0]["region_cosine:crops"]) < 0.3

    words = ("verify", "--store", "store", "--samples", 1, "--device", "cpu", "--json", "verified.json")
    densecli(*words, plugins=("teacher", "codec"))
    verified = json.loads((store.parent / "verified.json").read_text())
    names = {column["name"] for column in verified["columns"]}
    assert verified["verified"] is True and names >= {"signs-scenes-s", "colours-p12"}


@pytest.mark.slow
def test_loss_term__with_an_option_of_its_own(train):
    words = ("--loss", "region_huber=1", "--loss-option", "region_huber.delta=0.1")
    rows = train("huber", *words, "--teacher", "crops-scenes-s", plugins=("teacher", "codec", "loss_term"))
    assert rows[0]["region_huber"] > 0


@pytest.mark.slow
def test_method_schedule_logger_export__in_one_training(train, densecli, store):
    used = ("teacher", "codec", "method", "schedule", "logger")
    rows = train(
        "several", "--method", "labels-and-crops", "--teacher", "crops-scenes-s",
        "--schedule", "inverse-sqrt", "--warmup-steps", 1, "--lr", 1e-3, "--logger", "csv",
        plugins=used,
    )  # fmt: skip
    run = store.parent / "several"
    resolved = json.loads((run / "config.json").read_text())
    assert resolved["losses"] == {"region_kl": 1.0, "region_cosine": 0.5}
    assert (resolved["theta"], resolved["alpha"]) == (0.5, 0.8)
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 1e-3 * 0.5**0.5])
    with (run / "metrics.csv").open(newline="") as file:
        logged = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in logged] == [row["loss"] for row in rows]

    densecli("export", "--run", "several", "--layout", "image-tower", plugins=("export_format",))
    tower = load_file(run / "export" / "image-tower.safetensors")
    assert "conv1.weight" in tower and not any("token_embedding" in name for name in tower)


@pytest.mark.slow
def test_source__photos_in_a_zip_archive(densecli, folder):
    photo = folder / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(photo)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(photo, "val/a.jpg")
        archive.write(photo, "train/b.jpg")
        archive.writestr("readme.txt", "no photo")
    densecli(
        "build-shards", "--dataset", "zip", "--data", "photos.zip", "--split", "val", "--canvas", 64,
        "--store", "zipped", "--json", "built.json",
        plugins=("source",),
    )  # fmt: skip
    assert json.loads((folder / "built.json").read_text())["samples"] == 1
    assert json.loads((folder / "zipped" / "store.json").read_text())["dataset"]["name"] == "zip"


@pytest.mark.slow
def test_backbone_and_benchmark__a_new_model_is_measured_on_a_new_data_set(densecli, folder):
    root = folder / "pets"
    for part in ("images", "annotations/trimaps"):
        (root / part).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(root / "images" / "a.jpg")
    trimap = np.full((96, 96), 2, np.uint8)
    trimap[30:60, 30:60], trimap[28:30] = 1, 3
    Image.fromarray(trimap).save(root / "annotations" / "trimaps" / "a.png")
    (root / "annotations" / "test.txt").write_text("a 1 1 1\n")
    densecli(
        "evaluate", "--task", "segmentation", "--dataset", "pets", "--data", "pets", "--split", "test",
        "--student", "tiny-vit", "--weights", "tiny-vit=random:0", "--device", "cpu", "--json", "pets.json",
        plugins=("backbone", "benchmark"),
    )  # fmt: skip
    [found] = json.loads((folder / "pets.json").read_text()).values()
    assert found["random_weights"] is True and found["photos"] == 1
    assert {row["name"] for row in found["classes"]} == {"background", "pet"}


def test_readme__names_every_example():
    listed = (EXAMPLES / "README.md").read_text()
    files = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(files) == 10
    assert all(f"[{name}]({name})" in listed for name in files)
