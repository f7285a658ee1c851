"""An ablation through the real command line: random weights, a few scenes, a step or two a run."""

import json
from pathlib import Path

import pytest
from building import build_here
from click.testing import CliRunner, Result

from densecli.ablation.spec import ABLATIONS
from densecli.cli import main
from densecli.core.lock import FolderLock
from densecli.pipeline.config import BuildConfig

SPEC = """
title = "Two thetas"
beside = ["scenes-s"]
[train]
student = "scenes-s"
weights = ["scenes-s=random:1"]
max-steps = 2
batch-size = 2
device = "cpu"
[grid]
theta = [0.0, 0.05]
[evaluate]
limit = 3
"""


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def built(tmp_path: Path) -> list[object]:
    """The words of an ablation on a store that is there, made without Ray."""
    store, random = str(tmp_path / "store"), {"scenes-l": "random:0"}
    config = BuildConfig(
        dataset="scenes", limit=4, store=store, teachers=("scenes-l",), weights=random, device="cpu"
    )
    build_here(config)
    (tmp_path / "mine.toml").write_text(SPEC)
    return ["ablate", tmp_path / "mine.toml", "--store", store, "--run", tmp_path / "grid"]


def test_ablate__runs_once_and_as_train_does(built: list, tmp_path: Path) -> None:
    planned = run(*built, "--dry-run")
    assert planned.exit_code == 0 and not (tmp_path / "grid").exists()
    commands = planned.output.splitlines()
    assert len(commands) == 2 and all(line.startswith("densecli train ") for line in commands)

    out = tmp_path / "out.json"
    done = run(*built, "--json", out)
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert [each["name"] for each in result["runs"]] == ["scenes-s", "theta-0.0", "theta-0.05"]
    assert all(each["random_weights"] for each in result["runs"])
    (cost,) = result["teacher_costs"]
    assert cost["photos_seen"] == 8 and cost["stored_seconds"] > 0
    assert "Random weights" in (tmp_path / "grid" / "index.html").read_text()
    assert "theta" in (tmp_path / "grid" / "table.md").read_text()

    logged = (tmp_path / "grid" / "theta-0.05" / "metrics.jsonl").read_text().splitlines()
    words = commands[1].split()[1:]
    words[words.index("--run") + 1] = str(tmp_path / "alone")
    assert run(*words).exit_code == 0
    alone = (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()
    for mine, theirs in zip(map(json.loads, logged), map(json.loads, alone), strict=True):
        del mine["images_per_s"], theirs["images_per_s"]
        assert mine == theirs

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "grid").glob("theta-*/**/*")}
    again = run(*built)
    assert again.exit_code == 0 and "Two thetas" in again.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "grid").glob("theta-*/**/*")} == stamps


def test_ablate__what_is_missing_is_said_before_the_first_run(built: list, tmp_path: Path) -> None:
    spec = tmp_path / "mine.toml"
    spec.write_text(SPEC.replace("theta = [0.0, 0.05]", 'method = ["densevlm", "clipself"]'))
    done = run(*built)
    assert done.exit_code == 1 and "no crops column" in done.output and "build-shards" in done.output
    assert not list((tmp_path / "grid").glob("method-*"))
    spec.write_text(SPEC.replace("theta = [0.0, 0.05]", "theta = [0.0, 7]"))
    done = run(*built)
    assert done.exit_code == 1 and "densecli train --help" in done.output
    spec.write_text(SPEC.replace("limit = 3", "limit = -3"))
    done = run(*built)
    assert done.exit_code == 1 and "densecli evaluate --help" in done.output
    spec.write_text(SPEC)
    with FolderLock(tmp_path / "grid", "The ablation"):
        done = run(*built)
    assert done.exit_code == 1 and "is being written by process" in done.output
    assert not list((tmp_path / "grid").glob("theta-*"))


def test_ablate__interrupted_while_it_measures_it_ends(built: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*asked: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("densecli.evaluation.model_under_test.evaluate_regions", pressed)
    assert run(*built).exit_code == 130


def test_ablate__one_run_that_fails_is_told_and_the_exit_is_one(built: list, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SPEC.replace("theta = [0.0, 0.05]", "blocks = [9, 4]"))
    done = run(*built)
    assert done.exit_code == 1 and "4 blocks, not 9" in done.output
    assert (tmp_path / "grid" / "blocks-4" / "ablation.json").exists()
    assert "4 blocks, not 9" in (tmp_path / "grid" / "index.html").read_text()


def test_scaling__trains_on_nested_photos_and_says_why_there_is_no_curve(built: list, tmp_path: Path) -> None:
    words = ["scaling", *built[1:], "--shares", "0.7,1", "--same", "epochs", "--json", tmp_path / "out.json"]
    refused = run(*words)
    assert refused.exit_code == 1 and "varies theta" in refused.output
    spec = SPEC.replace("theta = [0.0, 0.05]", "seed = [0]").replace('beside = ["scenes-s"]', "")
    (tmp_path / "mine.toml").write_text(spec)
    refused = run(*words, "--shares", "0.01,1")
    assert refused.exit_code == 1 and "fewer than a step: 2" in refused.output
    done = run(*words)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out.json").read_text())
    (small, large) = result["photos"]
    assert 2 <= small["photos"] < large["photos"] == 4
    assert [each["name"] for each in result["runs"]] == ["photos-share-0.7-seed-0", "photos-share-1.0-seed-0"]
    config = json.loads((tmp_path / "grid" / "photos-share-0.7-seed-0" / "config.json").read_text())
    assert (config["photos_share"], config["drop_last"], config["epochs"]) == (0.7, True, 1)
    assert config["total_steps"] == small["photos"] // 2
    assert all("at least 4 sizes, not 2" in curve["reason"] for curve in result["curves"])
    page = (tmp_path / "grid" / "index.html").read_text()
    assert "Does more data pay?" in page and "extrapolat" not in done.output
    other = run(*words, "--same", "steps")
    assert other.exit_code == 1 and "other settings: epochs 1 -> " in other.output
    assert "Choose another --run" in other.output
    assert (tmp_path / "grid" / "index.html").read_text() == page


def test_ablate__names_what_is_shipped() -> None:
    done = run("ablate", "--list")
    assert done.exit_code == 0 and "scenes/decoupling" in done.output
    (theta,) = [line for line in done.output.splitlines() if line.startswith("coco/theta")]
    assert theta.split(maxsplit=1)[1] == "Theta: how sure the P-VLM must be of a region"
    assert f"coco: {ABLATIONS['coco']}" in done.output
