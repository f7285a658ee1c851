"""Which column a run reads where the store has several of a kind, and what it says where there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.scenes import NAMES, THINGS
from models.student import load_student
from shards.errors import DenseCLIError
from shards.regions import region_plan
from shards.store import Store
from train.columns import find_targets
from train.trainer import TrainConfig, Trainer

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
        assert words in caught.value.hint
    store.add_column("targets", "features-tiny", {"target": {"name": "features"}})
    with pytest.raises(DenseCLIError) as caught:
        find(store, categories="133")
    assert "densecli relabel" in caught.value.hint and "--categories 133" in caught.value.hint
    with pytest.raises(DenseCLIError, match="labels column of tiny, categories 133") as caught:
        find(store, categories="133", teachers=["tiny"])
    assert "build-shards --teacher tiny" in caught.value.hint


def test_blocks__only_the_last_ones_are_trained(tiny_store, tmp_path: Path) -> None:
    config = TrainConfig(
        store=tiny_store.store.root,
        run=str(tmp_path / "run"),
        student="scenes-s",
        weights="random:0",
        batch_size=4,
        max_steps=2,
        device="cpu",
        blocks=2,
        lr=1e-2,
    )
    trainer = Trainer(config)
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
