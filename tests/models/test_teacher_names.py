"""A column is found by any name of its teacher's model."""

from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.models.teacher_names import find_teacher_column, names_of
from densecli.shards.store import Column, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(str(tmp_path / "s"), {"name": "scenes", "split": "t", "n": 1, "seed": 0}, 96, [1])


def column(store: Store, name: str, kind: str) -> Column:
    return store.add_column("targets", name, {"target": {"name": kind}, "codec": {}}, {})


def test_names_of__both_names_of_a_model_with_the_kinds_prefix(store: Store) -> None:
    labels = column(store, "vitl14", "labels")
    assert names_of(labels) == {"vitl14", "eva02-l14-336", labels.full_name}
    crops = column(store, "crops-eva02-b16", "crops")
    assert names_of(crops) >= {"crops-vitb16", "crops-eva02-b16"}


def test_names_of__a_tuned_model_is_not_the_one_that_it_was(store: Store) -> None:
    tuned = column(store, "scenes-pvlm", "labels")
    assert names_of(tuned) == {"scenes-pvlm", tuned.full_name}


def test_find_teacher_column__by_an_alias(store: Store) -> None:
    crops = column(store, "crops-eva02-b16", "crops")
    assert find_teacher_column(store, "crops-vitb16").full_name == crops.full_name
    with pytest.raises(DenseCLIError, match="no targets columns named 'crops-vitl14'"):
        find_teacher_column(store, "crops-vitl14")
