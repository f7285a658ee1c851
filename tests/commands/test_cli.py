"""The command line as a user meets it: the chain, its labels, its refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from densecli.cli import COMMANDS, main
from densecli.core.errors import Interrupted
from densecli.models import registry
from densecli.models.checkpoints import find_weights, load_model
from densecli.models.state_dict import read_state_dict
from densecli.pipeline.config import BuildConfig
from densecli.scenes.pretrain import tune_pvlm
from densecli.shards.store import Store
from densecli.train.distillation import TrainConfig
from densecli.train.distillation import train as fit


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def passed(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: object, code: int = 1) -> str:
    result = run(*words)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if code == 1:
        assert result.output.count("Error: ") == 1 and result.output.count("Hint: ") == 1
    return result.output


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three readable photos and one that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    return folder


@pytest.fixture
def build(photos: Path, tmp_path: Path) -> list[object]:
    """A build of the photos by a random-weight teacher, as words."""
    return [
        "build-shards", "--dataset", "folder", "--data", photos, "--store", tmp_path / "store",
        "--canvas", 96, "--teacher", "scenes-l", "--weights", "scenes-l=random:0", "--categories", "scenes",
    ]  # fmt: skip


def plugin(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plug-in whose command is forgotten when the test ends."""
    monkeypatch.setenv("DENSECLI_PLUGINS", "")
    for attribute in ("_entries", "_values"):
        monkeypatch.setattr(COMMANDS, attribute, dict(getattr(COMMANDS, attribute)))
    path = folder / f"{name}.py"
    path.write_text(f"from densecli.core.registry import registry\nimport click\n{text}\n")
    return path


GREET = """
@registry("commands").register("{name}", help="Says hello.")
@click.command()
def greet():
    click.echo("hello")
"""


def test_plugin__before_a_command_that_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin(tmp_path, "greeting_command", GREET.format(name="greet"), monkeypatch)
    assert "No such command 'greet'" in refused("greet", code=2)
    assert passed("--plugin", path, "greet") == "hello\n"
    assert "greet" in passed("--help")


def test_plugin__may_not_hide_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin(tmp_path, "train_command", GREET.format(name="train"), monkeypatch)
    output = refused("--plugin", path, "train")
    assert "train_command.py" in output and "called 'train'" in output


def test_plugin__a_broken_one_is_told_by_the_help_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugin(tmp_path, "broken_command", "raise Warning('odd')", monkeypatch)
    monkeypatch.setenv("DENSECLI_PLUGINS", str(path))
    for words in (["--help"], ["list", "commands"]):
        assert "Warning: odd" in refused(*words)


@pytest.mark.ray
def test_chain__random_weights_are_named_in_every_number(build: list, tmp_path: Path) -> None:
    assert "3 photos; skipped 1" in passed(*build)
    assert "up to date" in passed(*build)
    train = [
        "train", "--store", tmp_path / "store", "--run", tmp_path / "run", "--student", "scenes-s",
        "--weights", "scenes-s=random:1", "--max-steps", 2, "--batch-size", 2,
    ]  # fmt: skip
    assert "planned, steps 1 to 2 (random weights)" in passed(*train, "--dry-run")
    assert not (tmp_path / "run").exists()
    assert "random weights" in passed(*train)
    assert "planned, all 2 steps are done" in passed(*train, "--dry-run")
    rows = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]

    from densecli.scenes.coco import write_coco

    write_coco(tmp_path / "world", seed=0, split="test", count=3)
    report = tmp_path / "report.json"
    printed = passed(
        "evaluate", "--data", tmp_path / "world", "--split", "test", "--run", tmp_path / "run",
        "--categories", "scenes", "--json", report, "--report", tmp_path / "report", "--crops",
    )  # fmt: skip
    page = (tmp_path / "report" / "index.html").read_text()
    assert "random weights" in printed and "Random weights" in page
    results = json.loads(report.read_text())
    assert list(results) == ["before", "after", "before, crops", "after, crops"]
    for result in results.values():
        assert result["random_weights"] and result["things"] + result["stuffs"] > 0


@pytest.mark.ray
def test_store_verbs__from_the_plan_to_the_rubbish(build: list, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out.json"

    def told(*words: object) -> dict:
        passed(*words, "--json", out)
        return json.loads(out.read_text())

    build = [*build, "--teacher", "self-scenes-s", "--weights", "scenes-s=random:0"]
    planned = told("plan", *build[1:], "--student", "scenes-s")
    passed(*build)
    described = told("info", "--store", store)
    assert described["complete"] and described["skipped"] == {"not-an-image": 1}
    assert planned["bytes"] == pytest.approx(described["bytes"], rel=0.02)
    assert told("lint", "--store", store)["findings"] == []
    assert told("verify", "--store", store, "--device", "cpu")["verified"]
    shown = ("preview", "1", "--store", store, "--theta", 0.3, "--live", "--device", "cpu")
    told(*shown, "--out", tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").format == "PNG"
    assert "no sample 7" in refused("preview", "7", "--store", store, "--out", tmp_path / "7.png")

    labels = Path(described["columns"][2]["name"] + "-" + described["columns"][2]["id"])
    tar = store / "targets" / labels / "000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    result = run("lint", "--store", store, "--json", "-")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert "was cut" in finding["trouble"] and "run the build again" in finding["remedy"]

    gc = ("gc", "--store", store, "--runs", tmp_path / "runs", "--keep", "grid-paper", "--min-age", 0)
    assert told(*gc)["items"] == []
    (tmp_path / "store" / "images" / ".000000.tar.7.tmp").touch()
    assert len(told(*gc)["items"]) == len(told(*gc, "--delete")["items"]) == 1
    assert told(*gc)["items"] == []


def test_plan__takes_the_flags_of_build_shards_and_of_train(tmp_path: Path) -> None:
    def planned(*words: object) -> dict:
        out = tmp_path / "plan.json"
        passed("plan", "--dataset", "scenes", "--limit", 4, "--samples", 2, *words, "--json", out)
        return json.loads(out.read_text())

    declip = planned("--method", "declip", "--epochs", 3)
    assert [t["name"] for t in declip["teachers"]] == ["crops-scenes-s", "scenes-vfm"]
    assert all(t["epoch_tflop"] for t in declip["teachers"]) and declip["epochs"] == 3
    assert declip["student"]["name"] == "scenes-s"

    labels = planned(
        "--teacher", "crops-scenes-l", "--loss", "region_kl=1", "--max-steps", 5, "--batch-size", 8
    )
    assert {t["name"]: t["epoch_tflop"] > 0 for t in labels["teachers"]} == {
        "crops-scenes-l": False,
        "scenes-pvlm": True,
    }
    assert labels["epochs"] == 10
    assert [t["name"] for t in planned("--teacher", "scenes-vfm")["teachers"]] == ["scenes-vfm"]
    assert "no method called 'sgd'" in refused("plan", "--dataset", "coco", "--method", "sgd")
    assert planned("--method", "r-sc-v", "--teacher", "features-scenes-pvlm")["epochs"] == 6


@pytest.mark.ray
def test_demo__runs_every_part(tmp_path: Path) -> None:
    out = tmp_path / "demo.json"
    printed = passed(
        "demo",
        "--run",
        tmp_path / "demo",
        "--scenes",
        12,
        "--test-scenes",
        6,
        "--max-steps",
        2,
        "--json",
        out,
    )
    assert "stuff as thing" in printed
    result = json.loads(out.read_text())
    assert set(result) == {"before", "after"}
    for figures in result.values():
        for name in ("boxes_top1", "masks_thing_top1", "masks_stuff_top1", "stuff_as_thing"):
            assert 0 <= figures[name] <= 100
        assert not figures["random_weights"]
    page = tmp_path / "demo" / "report" / "index.html"
    assert page.resolve().as_uri() in printed and "generated world" in page.read_text()
    with Image.open(tmp_path / "demo" / "preview.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 400


def test_tune_pvlm__is_the_product_s_own_chain(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    shutil.copy(find_weights("scenes-l"), weights)

    def tune() -> None:
        tune_pvlm(
            weights, lambda **asked: fit(TrainConfig(**asked)), seed=0, device="cpu", scenes=4, max_steps=2
        )

    tune()
    clip, pvlm = (read_state_dict(weights / f"{name}.safetensors") for name in ("scenes-l", "scenes-pvlm"))
    assert {name for name in clip if not torch.equal(clip[name], pvlm[name])}
    load_model("scenes-pvlm", str(weights / "scenes-pvlm.safetensors"))
    (row,) = json.loads((weights / "scenes.json").read_text())["models"].values()
    assert row["steps"] == 2
    (crops,) = Store.open(str(tmp_path / "crops-0-4")).columns("targets")
    assert crops.spec["target"]["name"] == "crops"

    made = (weights / "scenes-pvlm.safetensors").stat().st_mtime_ns
    tune()
    assert (weights / "scenes-pvlm.safetensors").stat().st_mtime_ns == made


def test_build__no_such_folder(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refused(
        "build-shards", "--dataset", "coco", "--data", tmp_path / "nowhere"
    )


def test_build__unknown_teacher_lists_the_known_ones(photos: Path, tmp_path: Path) -> None:
    output = refused(
        "build-shards",
        "--dataset",
        "folder",
        "--data",
        photos,
        "--store",
        tmp_path / "s",
        "--teacher",
        "vitz99",
    )
    assert "vitz99" in output and "vitl14" in output and "eva02-b16" in output


def test_build__unknown_data_set_suggests_the_nearest() -> None:
    output = refused("build-shards", "--dataset", "foldr")
    assert "no data set called 'foldr'" in output and "Did you mean folder?" in output


def test_build__no_data_set_is_a_usage_error() -> None:
    assert "--dataset" in refused("build-shards", "--teacher", "vitl14", code=2)


def test_build__weights_without_a_path_are_a_usage_error() -> None:
    refused("build-shards", "--weights", "vitb16", code=2)


def test_build__missing_weights_say_where_they_were_looked_for(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path / "none"))
    output = refused(
        "build-shards",
        "--dataset",
        "folder",
        "--data",
        photos,
        "--store",
        tmp_path / "s",
        "--teacher",
        "vitl14",
    )
    assert str(tmp_path / "none") in output and "--weights vitl14=PATH" in output


@pytest.mark.ray
def test_build__checkpoint_of_another_architecture_names_keys(build: list, tmp_path: Path) -> None:
    student = registry.build(registry.resolve("scenes-s")).clip.state_dict()
    save_file({name: tensor.clone() for name, tensor in student.items()}, tmp_path / "small.safetensors")
    build[build.index("scenes-l=random:0")] = f"scenes-l={tmp_path / 'small.safetensors'}"
    assert "visual.conv1.weight" in refused(*build)
    assert not (tmp_path / "store").exists()


def test_build__category_file_with_a_duplicate(build: list, tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("name,thing\nboat,true\nsky,false\nboat,true\n")
    build[build.index("scenes")] = tmp_path / "twice.csv"
    assert "'boat'" in refused(*build)


@pytest.mark.ray
def test_build__store_of_another_canvas(build: list) -> None:
    passed(*build)
    build[build.index(96)] = 48
    output = refused(*build)
    assert "canvas" in output and "96" in output and "48" in output


def test_build__dry_run_writes_nothing(build: list, tmp_path: Path) -> None:
    assert "planned" in passed(*build, "--dry-run")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("end", "code"),
    [(Interrupted(15, "SIGTERM stopped the build.", "Go on."), 143), (KeyboardInterrupt(), 130)],
)
def test_build__that_was_stopped_exits_with_128_and_the_signal(
    monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int
) -> None:
    asked = []

    def build(config: BuildConfig) -> None:
        asked.append(config)
        raise end

    monkeypatch.setattr("densecli.pipeline.build_shards.build_shards", build)
    output = refused(
        "build-shards", "--dataset", "scenes", "--gpus-per-worker", 0.5, "--ray-address", "auto", code=code
    )
    assert "Error: " in output
    assert (asked[0].gpus_per_worker, asked[0].ray_address) == (0.5, "auto")


def test_train__no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "build-shards" in refused("train")
    assert str(tmp_path / "gone") in refused("train", "--store", tmp_path / "gone")


def test_evaluate__unfinished_run(tmp_path: Path) -> None:
    assert "densecli train" in refused("evaluate", "--data", tmp_path, "--run", tmp_path)


@pytest.mark.parametrize("verb", ["build-shards", "train", "evaluate", "ablate", "categories", "demo"])
def test_help__has_an_example(verb: str) -> None:
    assert f"densecli {verb} --" in passed(verb, "--help")


@pytest.mark.ray
def test_real_coco__chain_with_published_text_embeddings(shared_data: Path, tmp_path: Path) -> None:
    text = shared_data / "text_embeddings" / "coco_panoptic133_eva_vitb16.npy"
    passed(
        "build-shards", "--teacher", "vitb16", "--dataset", "coco", "--data", shared_data / "coco128",
        "--split", "train2017", "--limit", 2, "--canvas", 128, "--store", tmp_path / "store",
        "--categories", 133, "--text-embeddings", text, "--weights", "vitb16=random:0",
    )  # fmt: skip
    passed(
        "train", "--store", tmp_path / "store", "--run", tmp_path / "run", "--weights", "eva02-b16=random:0",
        "--text-embeddings", text, "--max-steps", 1, "--batch-size", 2,
    )  # fmt: skip
    printed = passed(
        "evaluate", "--data", shared_data / "coco128", "--split", "val2017", "--limit", 2,
        "--run", tmp_path / "run", "--text-embeddings", text,
    )  # fmt: skip
    assert "random weights" in printed
