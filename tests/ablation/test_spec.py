"""Specs of ablations: the grid they span, the words they become, and what is refused."""

import tomllib
from pathlib import Path

import pytest

from densecli.ablation.spec import arguments, cells, find_spec, load_spec, shipped
from densecli.commands.ablate import flags_of
from densecli.commands.evaluate import evaluate
from densecli.commands.train import train
from densecli.core.errors import DenseCLIError
from densecli.models.registry import resolve
from densecli.train.config import TrainConfig
from densecli.train.methods import find_method
from densecli.train.terms import term_and_kind

FLAGS = {"train": flags_of(train), "evaluate": flags_of(evaluate)}

SPEC = """
title = "Two by two"
[train]
lr = 0.1
compile = true
drop-last = false
[grid]
theta = [0.1, 0.3]
loss = [["region_kl=1"], ["region_kl=1", "context=0.5"]]
"""


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "mine.toml").write_text(text)
    return tmp_path / "mine.toml"


def test_cells__every_combination_with_the_words_of_train(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, SPEC), FLAGS)
    found = cells(spec)
    assert [cell.name for cell in found] == [
        "theta-0.1-loss-region_kl=1",
        "theta-0.1-loss-region_kl=1-context=0.5",
        "theta-0.3-loss-region_kl=1",
        "theta-0.3-loss-region_kl=1-context=0.5",
    ]
    assert found[1].arguments == (
        *("--lr", "0.1", "--compile", "--theta", "0.1"),
        *("--loss", "region_kl=1", "--loss", "context=0.5"),
    )
    assert train.parse(found[1].arguments).given["losses"] == {"region_kl": 1.0, "context": 0.5}


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (SPEC.replace("theta", "thetta"), "theta"),
        (SPEC.replace("lr", "max-step"), "max-steps"),
        (SPEC.replace("[train]", "[trian]"), "train"),
        (SPEC + "[evaluate]\nsplt = 'val'\n", "split"),
        (SPEC.replace("lr = 0.1", "run = 'here'"), "regions"),
        (SPEC + "[evaluate]\nalphas = '0,1'\n", "classes"),
    ],
)
def test_load__unknown_key_names_the_nearest(tmp_path: Path, text: str, known: str) -> None:
    with pytest.raises(DenseCLIError, match="unknown key") as caught:
        load_spec(write(tmp_path, text), FLAGS)
    assert known in caught.value.hint


@pytest.mark.parametrize(
    "text", ["title = ", "title = 'no grid'", "[grid]\ntheta = 0.1", "[grid]\ntheta = []", "train = 3"]
)
def test_load__refuses(tmp_path: Path, text: str) -> None:
    with pytest.raises(DenseCLIError, match=r"mine\.toml"):
        load_spec(write(tmp_path, text), FLAGS)


def test_load__without_a_grid_where_the_command_has_one(tmp_path: Path) -> None:
    path = write(tmp_path, "[train]\nlr = 0.1\n")
    assert load_spec(path, FLAGS, grid_needed=False).grid == {}
    with pytest.raises(DenseCLIError, match="no grid of lists"):
        load_spec(path, FLAGS)
    with pytest.raises(DenseCLIError, match="no grid of lists"):
        load_spec(write(tmp_path, "[grid]\nseed = 0\n"), FLAGS, grid_needed=False)


def test_parse__a_value_that_the_command_refuses() -> None:
    with pytest.raises(DenseCLIError, match="theta") as caught:
        train.parse(["--theta", "7"])
    assert "densecli train --help" in caught.value.hint


def test_arguments__a_flag_that_is_off_has_none() -> None:
    assert arguments({"a": False, "b": True, "c": [], "d": 0}) == ["--b", "--d", "0"]


def test_find__by_the_name_of_the_data_set() -> None:
    assert find_spec("theta", "scenes") == shipped()["scenes/theta"]
    assert find_spec("theta", "sa1b") == find_spec("coco/theta", "scenes") == shipped()["coco/theta"]
    with pytest.raises(DenseCLIError, match="'thetta'") as caught:
        find_spec("thetta", "scenes")
    assert "Did you mean theta" in caught.value.hint
    with pytest.raises(DenseCLIError) as caught:
        find_spec("scene/theta", "scenes")
    assert "scenes/theta" in caught.value.hint


@pytest.mark.parametrize("name", shipped())
def test_shipped__asks_for_what_there_is(name: str) -> None:
    spec = load_spec(shipped()[name], FLAGS)
    assert spec.title != shipped()[name].stem and spec.about
    for model in spec.beside:
        assert resolve(model).family
    for cell in cells(spec):
        config = train.parse(cell.arguments).make(TrainConfig, store="store", run="run", weights=None)
        for loss in config.losses or find_method(config.method).losses:
            term_and_kind(loss)
    assert len({cell.name for cell in cells(spec)}) == len(cells(spec))
    assert evaluate.parse(arguments(spec.evaluate)).given


GRIDS = {
    "refiner-depth": {"refiner": [f"runs/refiner-{depth}" for depth in (2, 3, 4, 5)]},
    "lambda": {"loss": [["region_cosine=1", f"context={weight}"] for weight in (0.1, 0.2, 0.25, 0.3)]},
    "temperature": {"spatial-tau": [0.1, 0.15, 0.2, 0.25]},
    "temperature-teacher": {"spatial-tau-teacher": [0.15, 0.2, 0.3]},
    "blocks": {"blocks": [3, 6, 9, 12]},
    "input-size": {"image-size": [224, 320, 512, 768, 1024]},
    "categories": {"categories": ["133", "171", "273", "316"]},
    "pvlm": {"teacher": ["vitb16", "vitl14"]},
    "theta": {"theta": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
    "decoupling": {"decoupling": ["none", "full", "stuff-only", "densevlm"]},
}


@pytest.mark.parametrize("table", GRIDS)
def test_shipped__are_the_grids_of_the_papers_with_their_presets(table: str) -> None:
    spec = load_spec(shipped()[f"coco/{table}"], FLAGS)
    assert spec.grid == GRIDS[table]
    assert {"lr", "batch-size", "epochs", "alpha", "mode"}.isdisjoint(spec.train)
    if table in ("lambda", "blocks"):
        assert spec.train["method"] == "declip"


def test_shipped__every_table_for_coco_but_those_of_one_world() -> None:
    of_world, of_coco = (
        {name.partition("/")[2] for name in shipped() if name.startswith(f"{dataset}/")}
        for dataset in ("scenes", "coco")
    )
    assert of_world - of_coco == {
        *(
            "alpha",
            "beta",
            "decoupling-biased",
            "groups",
            "image-cosine",
            "keep",
            "methods",
            "teacher-mix",
            "terms",
        ),
    }
    for path in shipped().values():
        assert tomllib.loads(path.read_text())["train"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beside = 3", "beside in .* is not a list of names"),
        ("beside = [3]", "beside in .* is not a list of names"),
        ("title = 3", "title in .* is not a text"),
        ("[train]\nlr = 2026-01-01", r"lr in \[train\] of .* is"),
        ("[train]\nlr = {a = 1}", r"lr in \[train\] of .* is"),
    ],
)
def test_load__values_of_the_wrong_type(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, f"{text}\n[grid]\ntheta = [0.1]\n")
    with pytest.raises(DenseCLIError, match=said):
        load_spec(path, FLAGS)


def test_load__a_grid_of_very_many_runs_is_refused_at_once(tmp_path: Path) -> None:
    values = list(range(100))
    text = "[grid]\n" + "".join(f"{flag} = {values}\n" for flag in ("theta", "seed", "lr", "alpha"))
    with pytest.raises(DenseCLIError, match="100,000,000 runs"):
        load_spec(write(tmp_path, text), FLAGS)


def test_cells__values_of_the_same_meaning_are_one_run(tmp_path: Path) -> None:
    text = '[grid]\ntheta = [0.3, 0.3, "0.3", 0.5]\nseed = [0, 1]\n'
    found = cells(load_spec(write(tmp_path, text), FLAGS))
    assert [cell.name for cell in found] == [
        f"theta-{theta}-seed-{seed}" for seed in (0, 1) for theta in (0.3, 0.5)
    ]


def test_cells__that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    text = '[grid]\nstudent = ["a b", "a-b"]\n'
    with pytest.raises(DenseCLIError, match="would have the folder 'student-a-b'"):
        cells(load_spec(write(tmp_path, text), FLAGS))


def test_cells__a_long_value_has_a_folder_of_bounded_name(tmp_path: Path) -> None:
    text = f'[grid]\nstudent = ["{"x" * 10_000}a", "{"x" * 10_000}b"]\n'
    names = {cell.name for cell in cells(load_spec(write(tmp_path, text), FLAGS))}
    assert len(names) == 2 and max(map(len, names)) <= 200
