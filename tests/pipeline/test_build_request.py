import json
import pickle
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from densecli.cli import main
from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.pipeline.build_request import prepare
from densecli.pipeline.build_shards import build_shards
from densecli.pipeline.config import BuildConfig
from densecli.train.columns import find_targets


def test_prepare__unknown_teacher_lists_the_known(tiny):
    with pytest.raises(DenseCLIError, match="xyz99") as caught:
        prepare(replace(tiny, teachers=("xyz99",), weights={}))
    assert all(name in caught.value.hint for name in ("vitl14", "eva02-b16", "scenes-s"))


def test_prepare__weights_of_no_teacher_are_refused(tiny):
    with pytest.raises(DenseCLIError, match="vitb16, which no teacher") as caught:
        prepare(replace(tiny, weights={"scenes-s": "random:0", "vitb16": "random:0"}))
    assert "scenes-s" in caught.value.hint


def test_prepare__weights_that_are_not_there(tiny, tmp_path, monkeypatch):
    with pytest.raises(DenseCLIError, match=r"no .*nowhere\.pt"):
        prepare(replace(tiny, weights={"scenes-s": str(tmp_path / "nowhere.pt")}))
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    with pytest.raises(DenseCLIError, match="no weights for vitb16") as caught:
        prepare(replace(tiny, teachers=("vitb16",), weights={}))
    assert "--weights vitb16=" in caught.value.hint


def test_prepare__text_embeddings_that_are_not_there(tiny, tmp_path):
    with pytest.raises(DenseCLIError, match=r"no file .*text\.npy"):
        prepare(replace(tiny, text_embeddings=str(tmp_path / "text.npy")))


def test_prepare__unknown_templates_list_the_known(tiny):
    with pytest.raises(DenseCLIError, match="no prompt templates called 'poem'") as caught:
        prepare(replace(tiny, templates="poem"))
    assert "plain" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "what"),
    [({"canvas": 48}, "canvas"), ({"split": "test"}, "dataset"), ({"shard_size": 3}, "division into shards")],
)
def test_prepare__a_store_of_something_else_is_refused(tiny, change, what):
    build_here(tiny)
    with pytest.raises(DenseCLIError, match=f"has another {what}"):
        prepare(replace(tiny, **change))


def test_defaults__data_and_store_are_named_after_the_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DENSECLI_DATA", raising=False)
    (tmp_path / "data" / "coco" / "train2017").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "coco" / "train2017" / "a.jpg")
    request, source = prepare(BuildConfig(dataset="coco"))
    assert request.store.root == str(tmp_path / "stores" / "coco-512")
    assert len(source.items) == 1

    monkeypatch.setenv("DENSECLI_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DenseCLIError, match="elsewhere/coco"):
        prepare(BuildConfig(dataset="coco"))


def test_columns__every_setting_of_the_teacher_is_another_column(tiny):
    changes = [{}, {"tau": 0.02}, {"regions": "grid-clipself"}, {"weights": {"scenes-s": "random:1"}}]
    ids = [prepare(replace(tiny, **change))[0].columns()[2].id for change in changes]
    assert len(set(ids)) == len(changes)
    # How it is run is not what it is.
    assert prepare(replace(tiny, batch_size=3, workers=5))[0].columns()[2].id == ids[0]


def test_dry_run__says_what_is_missing_and_writes_nothing(tiny):
    summary = build_shards(replace(tiny, dry_run=True))
    assert summary["status"] == "planned"
    assert [(c["kind"], c["shards"], c["missing"]) for c in summary["columns"]] == [
        ("images", 2, 2),
        ("regions", 2, 0),
        ("targets", 2, 2),
    ]
    assert not Path(tiny.store).exists()


def test_dry_run__names_the_columns_that_the_build_then_makes(tiny):
    planned = build_shards(replace(tiny, dry_run=True))["columns"]
    request, _ = build_here(tiny)
    assert [column.id for column in request.columns()] == [column["id"] for column in planned]
    another = build_shards(replace(tiny, tau=0.5, dry_run=True))["columns"]
    assert [column["missing"] for column in another] == [0, 0, 2]


def test_up_to_date__when_nothing_is_missing(tiny, files_of, monkeypatch):
    build_here(tiny)
    monkeypatch.setattr("densecli.pipeline.build_shards.connected", None)
    # Writes the manifests, as of a store of an earlier version.
    assert build_shards(tiny)["status"] == "up to date"
    before = files_of(tiny.store)
    assert build_shards(tiny)["status"] == "up to date"
    assert files_of(tiny.store) == before


@pytest.mark.parametrize("lost", ["store.json", "regions/*/column.json", "targets/*/column.json"])
def test_up_to_date__a_lost_description_is_made_again(tiny, lost):
    request, _ = build_here(tiny)
    (path,) = Path(request.store.root).glob(lost)
    before = path.read_bytes()
    path.unlink()
    assert build_shards(replace(tiny, dry_run=True))["status"] == "up to date"
    assert not path.exists()
    assert build_shards(tiny)["status"] == "up to date"
    assert path.read_bytes() == before


@pytest.mark.parametrize("dataset", ["scenes", "coco", "folder"])
def test_missing_labels__the_printed_command_makes_them_in_that_very_store(
    tiny, tmp_path, monkeypatch, dataset
):
    folder = tmp_path / "data of mine" / dataset / "train2017"
    folder.mkdir(parents=True)
    for i in range(7):
        Image.new("RGB", (90, 60)).save(folder / f"{i}.jpg")
    monkeypatch.setenv("DENSECLI_DATA", str(tmp_path / "data of mine"))
    split = {"scenes": "val", "coco": "train2017", "folder": None}[dataset]
    config = replace(tiny, dataset=dataset, split=split, store=str(tmp_path / "my store"), canvas=48, seed=3)
    request, _ = build_here(replace(config, teachers=(), weights={}))
    with pytest.raises(DenseCLIError, match="no labels column of scenes-s") as caught:
        find_targets(request.store, ["labels"], teachers=("scenes-s",), student="scenes-s")

    (command,) = caught.value.commands
    program, *words = shlex.split(command)
    assert program == "densecli"
    extra = ["--weights", "scenes-s=random:0", "--categories", "scenes", "--dry-run", "--json", "-"]
    result = CliRunner().invoke(main, [*words, *extra])
    assert result.exit_code == 0, result.output
    planned = json.JSONDecoder().raw_decode(result.stdout)[0]
    assert planned["store"] == request.store.root
    assert [(c["kind"], c["missing"]) for c in planned["columns"]] == [
        ("images", 0),
        ("regions", 0),
        ("targets", 2),
    ]


def test_builder__weights_of_another_architecture_leave_nothing_behind(tiny, tmp_path):
    model, _ = load_model("scenes-l", "random:0")
    save_file(model.clip.state_dict(), tmp_path / "large.safetensors")
    request, _ = prepare(replace(tiny, weights={"scenes-s": str(tmp_path / "large.safetensors")}))
    with pytest.raises(DenseCLIError, match="does not fit scenes-s"):
        request.builder()
    assert not Path(tiny.store).exists()


def test_request__travels_without_the_listing(tiny):
    # store.json's shard sizes are the only thing in it that grows with the data.
    sizes = [len(pickle.dumps(prepare(replace(tiny, limit=n, shard_size=n))[0])) for n in (10, 1000)]
    assert abs(sizes[0] - sizes[1]) < 20


@pytest.mark.parametrize("dry_run", [False, True])
def test_prepare__a_store_that_is_a_file_is_refused(tmp_path, dry_run):
    (tmp_path / "file").write_text("mine")
    config = BuildConfig(
        dataset="scenes",
        limit=2,
        store=str(tmp_path / "file"),
        teachers=("scenes-s",),
        weights={"scenes-s": "random:0"},
        dry_run=dry_run,
    )
    with pytest.raises(DenseCLIError, match="is a file, not a store") as caught:
        prepare(config)
    assert "--store" in caught.value.hint and (tmp_path / "file").read_text() == "mine"
