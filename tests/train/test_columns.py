"""Which column a run reads where the store has several of a kind, and what it says where there is none."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from training import run_settings

from densecli.core.errors import DenseCLIError
from densecli.models.student import load_student
from densecli.scenes.vocabulary import NAMES, THINGS
from densecli.shards.region_plans import region_plan
from densecli.shards.store import Column, Store
from densecli.train.columns import find_targets
from densecli.train.distillation import TrainConfig, make_trainer
from densecli.train.refiner import WEIGHTS

NOISE = {"name": "noise", "split": "train", "n": 4}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Labels of two region plans, and of two category sets; no shard of any."""
    store = Store.create(tmp_path / "store", NOISE, 96, [4])
    for plan in map(region_plan, ("grid-paper", "grid-square")):
        regions = store.add_column("regions", plan.name, plan.spec)
        for names in (NAMES, NAMES[:15]) if plan.name == "grid-paper" else (NAMES,):
            target = {"name": "labels", "categories": list(names)}
            codec = {"things": [name in THINGS for name in names]}
            spec = {"target": target, "codec": codec, "regions": regions.key}
            store.add_column("targets", "tiny", spec)
    return store


def find(store: Store, **asked: Any) -> dict:
    return find_targets(store, ["labels"], student="scenes-s", **asked)["labels"].spec


def test_find__by_region_plan_and_category_set(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DenseCLIError, match="3 labels columns"):
        find(store)
    square = find(store, regions="grid-square")
    assert len(square["target"]["categories"]) == 20
    few = [{"name": name, "thing": name in THINGS} for name in NAMES[:15]]
    (tmp_path / "few.json").write_text(json.dumps(few))
    assert len(find(store, categories=str(tmp_path / "few.json"))["target"]["categories"]) == 15
    both = find(store, categories="scenes", regions="grid-paper")
    assert len(both["target"]["categories"]) == 20 and both["regions"] != square["regions"]
    # The same names with another thing flag are another set.
    few[0]["thing"] = not few[0]["thing"]
    (tmp_path / "few.json").write_text(json.dumps(few))
    with pytest.raises(DenseCLIError, match="no labels column"):
        find(store, categories=str(tmp_path / "few.json"))


def test_find__what_is_missing_comes_with_the_command_that_makes_it(store: Store) -> None:
    with pytest.raises(DenseCLIError, match="categories 133") as caught:
        find(store, categories="133", regions="grid-clipself")
    for words in ("build-shards", "--regions grid-clipself", "--categories 133"):
        assert words in caught.value.commands[0]
    store.add_column("targets", "features-tiny", {"target": {"name": "features"}})
    with pytest.raises(DenseCLIError) as caught:
        find(store, categories="133")
    assert "densecli relabel" in caught.value.commands[0] and "--categories 133" in caught.value.commands[0]
    with pytest.raises(DenseCLIError, match="labels column of tiny, categories 133") as caught:
        find(store, categories="133", teachers=["tiny"])
    assert "build-shards --teacher tiny" in caught.value.commands[0]


def test_find__a_misspelt_teacher_suggests_that_of_a_column(store: Store) -> None:
    with pytest.raises(DenseCLIError, match="no labels column of tinny") as caught:
        find(store, teachers=["tinny"], regions="grid-square")
    assert caught.value.hint.startswith("Did you mean tiny? Make it")
    assert caught.value.commands[0].startswith("densecli build-shards --teacher tinny")
    with pytest.raises(DenseCLIError, match="3 labels columns, none of tinny"):
        find(store, teachers=["tinny"])


def test_find__views_that_a_column_does_not_hold(store: Store) -> None:
    target = {"name": "crops", "views": 4}
    crops = store.add_column("targets", "crops-scenes-s", {"target": target})
    settings = {"student": "scenes-s", "regions": "grid-paper"}
    with pytest.raises(DenseCLIError, match="no crops column, regions grid-paper, views 8") as caught:
        find_targets(store, ["crops"], views=8, **settings)
    assert "--teacher crops-scenes-s" in caught.value.commands[0] and "--views 8" in caught.value.commands[0]
    # Labels are of every view.
    found = find_targets(store, ["crops", "labels"], views=4, categories="scenes", **settings)
    assert found["crops"] == crops
    # With a column of more views there are two, of which the first four are the same.
    more = store.add_column("targets", "crops-scenes-s", {"target": {**target, "views": 8}})
    for views, column in ((3, crops), (4, crops), (5, more), (8, more)):
        assert find_targets(store, ["crops"], views=views, **settings)["crops"] == column
    with pytest.raises(DenseCLIError, match="2 crops columns") as caught:
        find_targets(store, ["crops"], **settings)
    assert "--views" in caught.value.hint and "--refiner" not in caught.value.hint
    with pytest.raises(DenseCLIError, match="no labels column") as caught:
        find_targets(store, ["labels"], views=4, categories="133", **settings)
    assert "--views" not in caught.value.commands[0]


def exported(run: Path, weights: bytes) -> Path:
    file = run / "export" / WEIGHTS
    file.parent.mkdir(parents=True)
    file.write_bytes(weights)
    return file


def test_find__refined_columns_by_the_refiner_of_a_run_or_file(store: Store, tmp_path: Path) -> None:
    columns = {}
    for name in ("one", "two"):
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        spec = {"target": {"name": "refined", "views": 4}, "refiner": sha256}
        columns[name] = store.add_column("targets", "refiner-scenes-s", spec)

    def refined(**asked: Any) -> Column:
        return find_targets(store, ["refined"], student="scenes-s", **asked)["refined"]

    with pytest.raises(DenseCLIError, match="2 refined columns"):
        refined()
    file = exported(tmp_path / "one", b"one")
    assert refined(refiner=str(tmp_path / "one")) == refined(refiner=str(file)) == columns["one"]
    exported(tmp_path / "two", b"two")
    assert refined(refiner=str(tmp_path / "two")) == columns["two"]
    # The same Refiner, asked about more views: it need not be trained again.
    with pytest.raises(DenseCLIError, match="no refined column, views 8, refiner") as caught:
        refined(refiner=str(tmp_path / "one"), views=8)
    assert "train-refiner" not in caught.value.commands[0]
    assert (
        f"--weights refiner-scenes-s={file}" in caught.value.commands[0]
        and "--views 8" in caught.value.commands[0]
    )


def test_find__a_refiner_that_is_not_trained_yet(store: Store, tmp_path: Path) -> None:
    run = tmp_path / "refiner-2"
    with pytest.raises(DenseCLIError, match="no refined column, refiner ") as caught:
        find_targets(store, ["refined"], student="scenes-s", refiner=str(run))
    train, build = caught.value.commands
    assert train.endswith(f"--run {run}") and "--depth" in caught.value.hint and "--refiner" not in build
    assert f"--weights refiner-scenes-s={run / 'export' / WEIGHTS}" in build


def test_find__labels_of_crops_that_are_not_built_yet(store: Store) -> None:
    asked = {"student": "scenes-s", "regions": "grid-paper", "categories": "133", "views": 3}
    with pytest.raises(DenseCLIError, match="no crop-labels column") as caught:
        find_targets(store, ["crop-labels"], **asked)
    build, relabel = caught.value.commands
    assert build.startswith("densecli build-shards --teacher crops-vitl14 --dataset noise")
    assert "--regions grid-paper" in build and "--views 3" in build and "--categories" not in build
    assert relabel == f"densecli relabel --store {store.root} --teacher crops-vitl14 --categories 133"
    store.add_column("targets", "crops-vitl14", {"target": {"name": "crops", "views": 4}})
    with pytest.raises(DenseCLIError) as caught:
        find_targets(store, ["crop-labels"], **asked)
    assert caught.value.commands == (relabel,)


def test_find__names_all_kinds_that_are_missing_at_once(store: Store) -> None:
    with pytest.raises(DenseCLIError, match=r"no crops column.* no gram column") as caught:
        find_targets(store, ["crops", "gram", "labels"], student="scenes-s", categories="scenes",
                     regions="grid-paper")  # fmt: skip
    crops, gram = caught.value.commands
    assert "--teacher crops-scenes-s" in crops and "--teacher dinov2-vitb14" in gram
    with pytest.raises(
        DenseCLIError, match=r"no crops column of crops-vitl14\..* no gram column\."
    ) as caught:
        find_targets(store, ["crops", "gram"], student="scenes-s", teachers=["crops-vitl14"])
    assert [command.split()[3] for command in caught.value.commands] == ["crops-vitl14", "dinov2-vitb14"]


def test_blocks__only_the_last_ones_are_trained(tiny_store, tmp_path: Path) -> None:
    settings = {"max_steps": 2, "blocks": 2, "lr": 1e-2}
    trainer = make_trainer(TrainConfig(**run_settings(tiny_store.store.root, tmp_path / "run", **settings)))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit()
    after = trainer.model.state_dict()
    changed = {name.split(".")[4] for name in before if not before[name].equal(after[name])}
    assert changed == {"2", "3"}


def test_blocks__more_than_there_are() -> None:
    model, _ = load_student("scenes-s", "random:0")
    assert model.names_outside(4) < model.names_outside(3)
    for count in (0, 5):
        with pytest.raises(DenseCLIError, match="4 blocks"):
            model.names_outside(count)
