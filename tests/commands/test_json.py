"""--json - of every command: all of standard output, one document, with the fields that the page of the
command shows. That the fields are these is compared in `results.checked_write`, for every test that runs a
command in this process; `test_demo` runs demo."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from building import without_ray
from command_line import run
from finished_run import finished_run
from results import mistakes, of_result

from densecli.cli import NAMES, main
from densecli.commands.command import Command
from densecli.commands.lint import Finding
from densecli.commands.plan import Plan
from densecli.commands.results import Result
from densecli.evaluation.config import ClassifyConfig
from densecli.evaluation.model_under_test import ModelUnderTest, evaluate_regions
from densecli.scenes.coco import write_coco
from densecli.scenes.demo_page import write_demo
from densecli.shards.store import Store
from densecli.train.training_page import write_training_page

FEW = "--store store --device cpu"
SCENES = "build-shards --dataset scenes --limit 4 --shard-size 4 --side 2 --contexts 2 --views 1"
TEACHERS = (
    "--teacher features-scenes-l --teacher crops-scenes-s --teacher self-scenes-s --teacher scenes-pvlm "
    "--weights scenes-l=random:0"
)
# In an order in which each finds what those before it have made.
LINES = [
    "categories --from dog,sofa --dry-run",
    "list",
    "list models",
    "doctor",
    "plan --dataset scenes --limit 4 --teacher scenes-l --weights scenes-l=random:0",
    f"{SCENES} {TEACHERS} {FEW}",
    f"{SCENES} {TEACHERS} {FEW} --dry-run",
    "info store",
    "lint store",
    "relabel store --teacher features-scenes-l --weights scenes-l=random:0",
    "relabel store --teacher features-scenes-l --weights scenes-l=random:0 --dry-run",
    "mix store --teacher-mix scenes-pvlm=0.5 --teacher-mix relabel-scenes-l=0.5",
    f"verify {FEW} --samples 1 --teacher crops-scenes-s",
    "verify --store store --teacher scenes-pvlm --against relabel-scenes-l --report labels",
    "preview train-00000000 --store store --out one.png",
    "gc store --keep scenes-pvlm",
    "share store",
    "adopt shared/store --store store",
    f"train --method clipself --run runs/r --max-steps 1 --batch-size 2 {FEW}",
    f"train --method clipself --run runs/r --max-steps 2 --batch-size 2 {FEW} --dry-run --resume overwrite",
    f"train-refiner --run runs/refiner --max-steps 1 --batch-size 2 --crops 1 --tokens 2 {FEW}",
    "export runs/r --layout open_clip",
    "evaluate runs/r --data world --split test --categories scenes --device cpu --report regions",
    "evaluate runs/r --coupling --data world --split test --categories scenes --device cpu",
    "evaluate runs/r --task segmentation --dataset panoptic --data world --split test --categories scenes "
    "--report task",
    "predict world/test --run runs/r --names sky,bus --device cpu",
    "diagnose --run runs/r --data world/test --limit 1 --categories scenes",
    "ablate --list",
    "ablate spec.toml --store store --dry-run",
    "scaling scaling.toml --shares 1/2,1 --seeds 0 --store store --dry-run",
    "ablate spec.toml --store store --run runs/grid",
]

SPEC = """
title = "Learning rates"
about = "Two of them, for a step."
[train]
method = "clipself"
student = "scenes-s"
max-steps = 1
batch-size = 2
device = "cpu"
[grid]
lr = [1e-5, 1e-4]
[evaluate]
data = "world"
split = "test"
categories = "scenes"
device = "cpu"
"""
PAGES = [f"{folder}/index.html" for folder in ("labels", "regions", "task", "runs/r/diagnosis", "runs/grid")]
"""The pages that the commands make."""
DEMO = "build-shards --dataset scenes --limit 3 --teacher scenes-pvlm --store demo-store --device cpu"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A working folder with three annotated scenes."""
    with pytest.MonkeyPatch.context() as patch, without_ray():
        patch.chdir(tmp_path_factory.mktemp("json"))
        write_coco(Path("world"), split="test", count=3)
        Path("spec.toml").write_text(SPEC)
        Path("scaling.toml").write_text(SPEC.replace("lr =", "seed =").replace("1e-5, 1e-4", "0, 1"))
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("line", LINES)
def test_json__is_all_of_standard_output(line: str) -> None:
    result = run(*line.split(), "--json", "-")
    assert result.exit_code == 0, result.output
    assert isinstance(json.loads(result.stdout), dict)
    # What it says for people goes to standard error.
    assert result.stderr


@pytest.fixture(scope="module")
def pages(world: None) -> list[Path]:
    """Pages of the commands above, that of a longer training, and that of the demo."""
    training = finished_run(Path("runs/long"))
    run(*DEMO.split())
    store = Store.open("demo-store")
    [labels] = store.columns("targets")
    Path("demo").mkdir()
    where = {"data": "world", "split": "test", "categories": "scenes", "config": ClassifyConfig(canvas=96)}
    student = ModelUnderTest(model="scenes-s", weights=None)
    found = evaluate_regions(student, **where, device="cpu")
    names = ("teacher", "before", "undecoupled", "after")
    write_demo(
        Path("demo"),
        store,
        labels.full_name,
        0.8,
        dict.fromkeys(names, student),
        dict.fromkeys(names, found),
        {**where, "device": "cpu"},
    )
    return [*map(Path, PAGES), write_training_page("runs/long", training, []), Path("demo/report/index.html")]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_pages__fit_a_telephone_and_follow_its_colours(
    scheme: str, dark: bool, pages: list[Path], on_a_telephone: Callable[..., list[tuple[int, str]]]
) -> None:
    """Tables scroll by themselves."""
    for page, (width, ground) in zip(pages, on_a_telephone(pages, scheme), strict=True):
        assert width == 390, page
        assert (max(map(int, re.findall(r"\d+", ground)[:3])) < 80) == dark, (page, ground)


def test_json__every_command_is_tried_and_described() -> None:
    tried = {line.split()[0] for line in LINES}
    assert tried == set(NAMES)
    context = click.Context(main)
    for name in (*NAMES, "demo"):
        command = main.get_command(context, name)
        assert isinstance(command, Command) and command.results, name


def test_mistakes__are_found() -> None:
    finding = {"url": "x", "trouble": "t", "remedy": "r", "leftover": False, "advice": False}
    assert not list(mistakes(finding, Finding))
    wrong = {**finding, "url": 3, "more": 1, "leftover": None}
    del wrong["remedy"]
    assert len(list(mistakes(wrong, Finding))) == 4
    assert not list(of_result({"a": finding}, Result(fields=Finding, by="name")))
    assert list(of_result({"a": {**finding, "new": 1}}, Result(fields=Finding, by="name")))
    assert not list(of_result({**finding, "new": 1}, Result(fields=Finding, more="Others.")))
    assert any("epochs" in each for each in mistakes({}, Plan))
