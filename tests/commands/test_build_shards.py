"""densecli build-shards, from the command line: what it refuses, and how it ends."""

from pathlib import Path

import pytest
from building import without_ray
from command_line import passed, refused
from safetensors.torch import save_file

from densecli.commands.build_shards import summary_text
from densecli.core.errors import Interrupted
from densecli.models import registry
from densecli.pipeline.config import BuildConfig


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


def test_build__checkpoint_of_another_architecture_names_keys(build: list, tmp_path: Path) -> None:
    student = registry.build(registry.resolve("scenes-s")).clip.state_dict()
    save_file({name: tensor.clone() for name, tensor in student.items()}, tmp_path / "small.safetensors")
    build[build.index("scenes-l=random:0")] = f"scenes-l={tmp_path / 'small.safetensors'}"
    with without_ray():
        assert "visual.conv1.weight" in refused(*build)
    assert not (tmp_path / "store").exists()


def test_build__category_file_with_a_duplicate(build: list, tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("name,thing\nboat,true\nsky,false\nboat,true\n")
    build[build.index("scenes")] = tmp_path / "twice.csv"
    assert "'boat'" in refused(*build)


def test_build__store_of_another_canvas(build: list) -> None:
    with without_ray():
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


def test_summary__says_how_refused_addresses_may_be_read() -> None:
    summary = {"columns": [], "store": "s", "status": "built", "samples": 1}
    refused_ones = {"skipped": {"private-address": 2, "corrupt": 1}, "skipped_first": {}}
    text = summary_text({**summary, **refused_ones})
    assert "--allow-private" in text and "--allow-local" not in text and "--store" in text
    assert "--store" not in summary_text({**summary, "skipped": {"corrupt": 1}})
    named = {
        "skipped": {"corrupt": 2, "empty": 1},
        "skipped_first": {"corrupt": ["a.jpg"], "empty": ["b.jpg"]},
    }
    assert "skipped 2 corrupt (a.jpg, ...), 1 empty (b.jpg)" in summary_text({**summary, **named})
