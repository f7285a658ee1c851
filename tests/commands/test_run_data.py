"""The data set of a run, where no other is named."""

import json
from pathlib import Path

import pytest

from densecli.commands.options import Options
from densecli.commands.run_data import annotated_photos, categories_of, on_the_runs_data, store_of
from densecli.commands.train import some_names
from densecli.core.errors import DenseCLIError
from densecli.models.categories import load_categories
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


def store_of_data_set(folder: Path, name: str) -> Store:
    return Store.create(str(folder / name), {"name": name, "split": "train", "n": 1, "seed": 0}, 96, [1])


def test_annotated_photos__no_more_are_drawn_than_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSECLI_DATA", str(tmp_path))
    store = store_of_data_set(tmp_path, "scenes").root
    folder = tmp_path / "scenes"
    for needed, drawn in ((2, 2), (3, 3), (1, 3)):
        annotated_photos(store, {}, photos=needed, training=1)
        assert [len(list((folder / split).glob("*.jpg"))) for split in ("test", "train")] == [drawn, 1]


def test_run_data__a_detection_takes_no_categories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DENSECLI_DATA", str(tmp_path))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"store": store_of_data_set(tmp_path, "coco").root}))
    mine = Options(given={"data": "photos"})
    assert on_the_runs_data(mine, str(run), with_categories=False) is mine
    assert capsys.readouterr().err == ""
    assert on_the_runs_data(mine, str(run)).given["categories"] == "133"
    assert "133" in capsys.readouterr().err


def test_categories_of__the_stores_labels_else_its_data_set(tmp_path: Path) -> None:
    store = store_of_data_set(tmp_path, "folder")
    assert categories_of(store.root).name == "coco_stuff_ade_316"
    target = {"name": "labels", "categories": ["sky", "a, b", "dog", "sofa", "cat"]}
    codec = {"name": "topk", "things": [False, True, True, True, True]}
    info = {"categories": "mine.txt"}
    store.add_column("targets", "t", {"target": target, "codec": codec, "regions": None}, info)
    found = categories_of(store.root)
    assert (found.name, found.names[2], list(found.thing)) == ("mine.txt", "dog", codec["things"])
    # What a command line suggests; a comma separates names there.
    assert some_names(found) == ["dog", "sofa", "sky"]
    assert some_names(load_categories("dog, sofa")) == ["dog", "sofa"]
