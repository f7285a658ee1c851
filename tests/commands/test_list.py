"""densecli list: every kind has names, each with a line, and says what is missing here."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hub_server import Hub
from registries import put

from densecli.cli import main
from densecli.commands.name_kinds import KINDS
from densecli.core import registry
from densecli.core.registry import Registry
from densecli.models.vfm_architecture import VFMArchitecture
from densecli.models.vfms import VFMS
from densecli.models.weights import find_weights, weights_file
from densecli.pipeline.teachers import TEACHERS, TeacherFamily

ROOT = Path(__file__).parents[2]


def listed(*words: str) -> dict:
    done = CliRunner().invoke(main, ["list", *words, "--json", "-"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_list__names_the_kinds() -> None:
    assert listed().keys() == KINDS.keys()


def test_list__shows_every_kind_that_is_read() -> None:
    assert sorted(KINDS) == sorted(registry.KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_list__has_a_line_for_every_name(kind: str) -> None:
    names = listed(kind)["names"]
    assert names and all(each["name"] and each["help"] for each in names)


def test_list__says_where_weights_are_and_what_would_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_server: Hub
) -> None:
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    (tmp_path / "dinov2-vits14.pth").touch()
    repo = "timm/vit_large_patch14_dinov2.lvd142m"
    hub_server.repos[repo] = {"model.safetensors": b"weights"}
    weights_file(find_weights("dinov2-vitl14"))
    hub_server.asked.clear()
    put(monkeypatch, VFMS, "nobodys", VFMArchitecture(name="nobodys", timm="vit_tiny_patch16_224", patch=16))
    found = {each["name"]: each for each in listed("vfms")["names"]}
    assert found["dinov2-vits14"]["weights"] == found["scenes-vfm"]["weights"] == "here"
    assert found["dinov2-vitl14"]["weights"] == "hub cache"
    assert found["dinov2-vitb14"]["weights"] == "hub" and found["dinov2-vitb14"]["megabytes"] == 346
    assert found["nobodys"]["weights"] == "" and found["nobodys"]["missing"] == "no weights"
    lines = CliRunner().invoke(main, ["list", "vfms"]).stdout
    assert "fetched when used: about 346 MB" in lines and "licence apache-2.0" in lines
    assert hub_server.asked == []


def test_list__knows_every_registry() -> None:
    calls = (
        node
        for file in ROOT.glob("*/**/*.py")
        if file.parts[len(ROOT.parts)]
        in {"core", "shards", "models", "pipeline", "train", "evaluation", "ablation"}
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "registry"
    )
    made = {argument.value for call in calls for argument in call.args if isinstance(argument, ast.Constant)}
    assert made and made | {"commands"} == set(KINDS)


def test_list__teachers_are_those_of_the_registry_and_say_whose_weights_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vitb16.pt", "refiner-vitb16.safetensors"):
        (tmp_path / name).touch()
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    models = Registry("models")
    for name in ("vitb16", "vitl14"):
        models.add(name, None, help="Of a test.")
    for family in ("labels", "refined"):
        put(monkeypatch, TEACHERS, family, replace(TEACHERS[family], models=lambda: models))
    closed = TeacherFamily(
        kind="crops", models=lambda: ["p8", "p16"], configure=lambda *_: None, weights=lambda model: {}
    )
    put(monkeypatch, TEACHERS, "patches", closed)
    missing = {each["name"]: each["missing"] for each in listed("teachers")["names"]}
    assert len(missing) == len(TEACHERS)
    assert missing["refiner-MODEL"] == "weights only for vitb16"
    assert missing["MODEL"] == ""
    assert missing["crops-p8, crops-p16"] == ""


def test_list__a_kind_without_names_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densecli.commands.name_kinds.registry", Registry)
    done = CliRunner().invoke(main, ["list", "commands"])
    assert done.exit_code == 0 and done.stdout.startswith("none")


def test_list__an_unknown_kind_suggests_the_nearest() -> None:
    done = CliRunner().invoke(main, ["list", "methds"])
    assert done.exit_code == 1 and "methods" in done.output
