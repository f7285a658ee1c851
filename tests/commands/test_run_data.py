"""The data set of a run, where no other is named."""

import json
from pathlib import Path

import pytest

from densecli.commands.options import Options
from densecli.commands.run_data import on_the_runs_data, store_of
from densecli.core.errors import DenseCLIError
from densecli.shards.specs import DatasetIdentity
from densecli.shards.store import Store


@pytest.mark.parametrize("config", [None, "{}", '{"store": "gone"}'])
def test_run_data__without_a_store_the_options_stay(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    options = Options(given={"split": "val"})
    assert on_the_runs_data(options, str(tmp_path)) is options


@pytest.mark.parametrize("config", ["{", "[]", '{"store": 3}'])
def test_run_data__of_a_damaged_run_is_refused(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(DenseCLIError, match=r"The run's configuration .* is damaged"):
        on_the_runs_data(Options(given={}), str(tmp_path))


@pytest.mark.parametrize("place", ["", "export", "export-best", "export-best/student.safetensors"])
def test_store_of__a_run_its_exports_and_their_files(tmp_path: Path, place: str) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    for folder in (run, store):
        folder.mkdir()
    (store / "store.json").write_text("{}")
    (run / "config.json").write_text(json.dumps({"store": str(store)}))
    assert store_of(str(run / place)) == str(store)
    assert store_of(str(tmp_path / "other" / place)) == ""


@pytest.mark.parametrize(
    ("dataset", "given", "categories"),
    [
        ("scenes", {"data": "photos"}, "scenes"),
        ("scenes", {"data": "photos", "categories": "133"}, "133"),
        ("scenes", {"data": "photos", "dataset": "voc21"}, None),
        ("coco", {"data": "photos"}, None),
        ("folder", {"data": "photos"}, None),
    ],
)
def test_run_data__photos_of_the_users_own_with_the_runs_categories(
    tmp_path: Path, dataset: str, given: dict[str, str], categories: str | None
) -> None:
    described: DatasetIdentity = {"name": dataset, "split": "train", "n": 1, "digest": ""}
    Store.create(tmp_path / "store", described, 96, [1])
    (tmp_path / "config.json").write_text(json.dumps({"store": str(tmp_path / "store")}))
    found = on_the_runs_data(Options(given=given), str(tmp_path)).given
    assert found == {**given, **({"categories": categories} if categories else {})}
