"""Columns for others: shared without photos, joined to the same photos by digest, refused on others."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from building import build_here
from click.testing import CliRunner
from PIL import Image

from densecli.cli import main
from densecli.core.errors import DenseCLIError
from densecli.pipeline import store_card
from densecli.pipeline.adopt import adopt
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.mix import mix_labels
from densecli.pipeline.mix_config import MixConfig
from densecli.pipeline.share import check_no_picture, share
from densecli.pipeline.share_config import AdoptConfig, ShareConfig
from densecli.shards.lint import lint
from densecli.shards.store import Store
from densecli.shards.tars import index_of
from densecli.shards.writer import ShardWriter, npz_bytes
from densecli.train.distillation import TrainConfig, make_trainer

TEACHERS = ("scenes-s", "crops-scenes-s", "self-scenes-s")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of seven photos of many sizes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(7):
        size = (60 + 10 * number, 120 - 10 * number, 3)
        smooth = rng.integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(smooth).resize(size[:2]).save(folder / f"photo-{number}.jpg", quality=95)
    return folder


def config_of(photos: Path, store: Path, **settings) -> BuildConfig:
    defaults = {
        "dataset": "folder",
        "data": str(photos),
        "canvas": 96,
        "shard_size": 3,
        "store": str(store),
        "categories": "scenes",
        "regions": "grid-square",
        "views": 1,
        "device": "cpu",
    }
    return BuildConfig(**{**defaults, **settings})


@pytest.fixture(scope="module")
def built(photos, tmp_path_factory):
    """A store with three teachers' columns."""
    store = tmp_path_factory.mktemp("built") / "store"
    build_here(config_of(photos, store, teachers=TEACHERS))
    return store


@pytest.fixture(scope="module")
def shared(built, tmp_path_factory):
    out = tmp_path_factory.mktemp("shared") / "out"
    share(ShareConfig(store=str(built), out=str(out), licence="cc-by-4.0"))
    return out


def test_share__has_no_photo_and_no_place_of_this_machine(shared, built, photos):
    files = [path for path in shared.rglob("*") if path.is_file()]
    names = {str(path.relative_to(shared)) for path in files}
    assert not any(name.startswith("images/") or name.endswith(".jpg") for name in names)
    assert {"README.md", "share.json", "store.json", "photos/000000.sha256"} <= names
    for path in files:
        data = path.read_bytes()
        assert b"\xff\xd8\xff" not in data[:512] and b"JFIF" not in data
        assert str(photos).encode() not in data and str(built).encode() not in data
    card = (shared / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    for teacher in TEACHERS:
        assert f"| {Store.open(built).find('targets', teacher).full_name} |" in card
    assert "7 photos" in card and "DenseVLM" in card and "a rough picture" in card
    # Its columns are byte for byte those of the store.
    for column in Store.open(built).columns("targets"):
        for shard in column.shard_names:
            copy = shared / "targets" / Path(column.url).name / f"{shard}.tar"
            assert copy.read_bytes() == Path(column.tar_url(shard)).read_bytes()


def test_share__passes_lint_and_tells_of_every_column_in_its_folder(shared, built):
    assert list(lint(Store.open(shared))) == []
    with pytest.raises(DenseCLIError, match=r"not to be shared now: crops-scenes-s-\w+, self-scenes-s-"):
        share(ShareConfig(store=str(built), out=str(shared), columns=("scenes-s",)))
    assert len(json.loads((shared / "share.json").read_text())["columns"]) == 1 + len(TEACHERS)


def test_share__again_writes_nothing_anew(built, shared):
    tars = {path: path.stat().st_mtime_ns for path in shared.rglob("*.tar")}
    share(ShareConfig(store=str(built), out=str(shared), licence="cc-by-4.0"))
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*.tar")} == tars


def contents(store: str | Path) -> dict:
    """Every sample's stored members, by column name and key."""
    opened = Store.open(store)
    found = {}
    for column in opened.columns("targets"):
        for record in opened.samples(column):
            members = record.parts[column.part]
            found[column.name, record.key] = {name: bytes(members[name]) for name in members}
    return found


def test_adopt__stores_built_apart_on_the_same_photos_join(photos, shared, built, tmp_path):
    copied = tmp_path / "elsewhere"
    shutil.copytree(photos, copied)
    mine = config_of(copied, tmp_path / "mine")
    build_here(mine)
    summary = adopt(AdoptConfig(shared=str(shared), store=mine.store))
    assert summary["status"] == "built"
    assert contents(mine.store) == contents(built)
    # They are the columns that the teachers would have made here: nothing is left to build.
    request, _ = build_here(replace(mine, teachers=TEACHERS))
    assert {c.key for c in request.store.columns("targets")} == {
        c.key for c in Store.open(built).columns("targets")
    }
    for column in Store.open(built).columns("targets"):
        for shard in column.shard_names:
            mine_tar = Path(mine.store, "targets", Path(column.url).name, f"{shard}.tar")
            assert mine_tar.read_bytes() == Path(column.tar_url(shard)).read_bytes()
    assert not [finding for finding in lint(Store.open(mine.store)) if not finding.advice]
    assert adopt(AdoptConfig(shared=str(shared), store=mine.store))["status"] == "up to date"


@pytest.mark.parametrize("change", [{"shard_size": 2}, {"limit": 4}, {"store_boxes": True}])
def test_adopt__another_cut_or_a_part_of_the_photos(photos, shared, built, tmp_path, change):
    mine = config_of(photos, tmp_path / "mine", **change)
    build_here(mine)
    adopt(AdoptConfig(shared=str(shared), store=mine.store))
    ours, theirs = contents(mine.store), contents(built)
    keys = {record.key for record in Store.open(mine.store).samples()}
    assert ours == {place: members for place, members in theirs.items() if place[1] in keys}
    assert {name for name, _ in ours} == set(TEACHERS)
    for name in TEACHERS:
        # What a teacher took for these photos, though none ran here; the last shards have other shares.
        spent = [
            sum(receipt.seconds["teacher"] for receipt in map(c.receipt, c.shard_names))
            for c in (Store.open(root).find("targets", name) for root in (mine.store, built))
        ]
        assert 0 < spent[0] <= spent[1] * (1 + 1e-9)
        assert spent[0] == pytest.approx(spent[1]) or len(keys) < len({key for _, key in theirs})
    column = Store.open(mine.store).find("targets", "scenes-s")
    largest = max(
        receipt.error["max_tv"]
        for c in [Store.open(built).find("targets", "scenes-s")]
        for receipt in map(c.receipt, c.shard_names)
    )
    assert all(column.receipt(shard).error["max_tv"] <= largest for shard in column.shard_names)
    trainer = make_trainer(
        TrainConfig(
            store=mine.store, run=str(tmp_path / "run"), student="scenes-s", method="clipself",
            batch_size=2, max_steps=1, workers=0, device="cpu", teachers=("crops-scenes-s",),
        )
    )  # fmt: skip
    assert np.isfinite(trainer.train_step([next(trainer.loader.batches(0))])["loss"])


def test_adopt__a_mix_of_columns_names_them_as_they_are_called_here(photos, tmp_path):
    """Keys of columns depend on the store; a mix sorts before the columns that it is made of."""
    theirs = config_of(photos, tmp_path / "theirs", teachers=("scenes-s", "scenes-l"))
    build_here(theirs)
    mix_labels(MixConfig(store=theirs.store))
    share(ShareConfig(store=theirs.store, out=str(tmp_path / "out")))
    mine = config_of(photos, tmp_path / "mine", shard_size=2)
    build_here(mine)
    adopt(AdoptConfig(shared=str(tmp_path / "out"), store=mine.store))
    assert mix_labels(MixConfig(store=mine.store))["status"] == "up to date"


def altered(photos: Path, folder: Path) -> Path:
    """The same photos, but one has other pixels."""
    shutil.copytree(photos, folder)
    photo = Image.open(folder / "photo-3.jpg").rotate(180)
    photo.save(folder / "photo-3.jpg", quality=95)
    return folder


def renamed(photos: Path, folder: Path) -> Path:
    """The same photos, but one has another name."""
    shutil.copytree(photos, folder)
    os.rename(folder / "photo-3.jpg", folder / "zebra.jpg")
    return folder


@pytest.mark.parametrize(("change", "said"), [(altered, "pixels differ"), (renamed, "not about 1 of the")])
def test_adopt__other_photos_are_refused_and_nothing_is_written(photos, shared, tmp_path, change, said):
    mine = config_of(change(photos, tmp_path / "photos"), tmp_path / "mine")
    build_here(mine)
    with pytest.raises(DenseCLIError, match=said):
        adopt(AdoptConfig(shared=str(shared), store=mine.store))
    assert not (tmp_path / "mine" / "targets").exists()


def test_adopt__another_canvas_is_refused(photos, shared, tmp_path):
    mine = config_of(photos, tmp_path / "mine", canvas=128)
    build_here(mine)
    with pytest.raises(DenseCLIError, match=r"photos of 128 px.*photos of 96 px"):
        adopt(AdoptConfig(shared=str(shared), store=mine.store))


def test_adopt__a_folder_that_nobody_shared_is_named_as_such(photos, built, tmp_path):
    mine = config_of(photos, tmp_path / "mine")
    build_here(mine)
    for other in (tmp_path / "empty", built):
        with pytest.raises(DenseCLIError, match="is no shared store") as caught:
            adopt(AdoptConfig(shared=str(other), store=mine.store))
        assert "densecli share" in caught.value.hint


def cut_digests(folder: Path) -> None:
    file = folder / "photos" / "000001.sha256"
    file.write_bytes(file.read_bytes()[:-1])


def no_digests(folder: Path) -> None:
    shutil.rmtree(folder / "photos")


def flipped_tar(folder: Path) -> None:
    [file] = folder.glob("targets/crops-*/000001.tar")
    data = bytearray(file.read_bytes())
    data[700] ^= 1
    file.write_bytes(data)


def no_receipt(folder: Path) -> None:
    for file in folder.glob("targets/*/000001.json"):
        file.unlink()


def cut_description(folder: Path) -> None:
    [file] = folder.glob("targets/crops-*/column.json")
    file.write_bytes(file.read_bytes()[:40])


def cut_store(folder: Path) -> None:
    file = folder / "store.json"
    file.write_bytes(file.read_bytes()[:40])


DAMAGES = (cut_digests, no_digests, flipped_tar, no_receipt, cut_description, cut_store)


@pytest.mark.parametrize("damage", DAMAGES)
def test_adopt__a_damaged_copy_is_one_sentence(photos, shared, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(shared, copy)
    damage(copy)
    mine = config_of(photos, tmp_path / "mine")
    build_here(mine)
    with pytest.raises(DenseCLIError) as caught:
        adopt(AdoptConfig(shared=str(copy), store=mine.store))
    assert caught.value.hint and "build" not in caught.value.hint.lower()


def test_check_no_picture__refuses_pixels_and_other_members(built):
    column = Store.open(built).find("targets", "crops-scenes-s")
    with pytest.raises(DenseCLIError, match=r"a member \.jpg"):
        check_no_picture(column, "a", {"jpg": b""})
    with pytest.raises(DenseCLIError, match="like a picture's pixels"):
        check_no_picture(column, "a", {"npz": npz_bytes({"crop": np.zeros((8, 8, 3), np.uint8)})})


def test_commands__share_then_adopt(built, photos, tmp_path):
    words = ["share", "--store", str(built), "--out", str(tmp_path / "out"), "--column", "crops-scenes-s"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "No licence is stated" in done.output
    mine = config_of(photos, tmp_path / "mine")
    build_here(mine)
    file = tmp_path / "adopted.json"
    words = ["adopt", str(tmp_path / "out"), "--store", mine.store, "--json", str(file)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    kinds = [(c["kind"], c["name"]) for c in json.loads(file.read_text())["columns"]]
    assert kinds == [("regions", "grid-square"), ("targets", "crops-scenes-s")]


def test_licence__of_published_weights_and_of_those_that_densecli_ships():
    assert store_card._licence("vit-b16") == "mit"
    assert store_card._licence("scenes-s") == store_card._licence("scenes-vfm") == "Apache-2.0"
    assert store_card._licence("a-strangers") == "not known"


def test_share__the_card_has_weights_and_licence_of_what_a_column_is_made_of(built, tmp_path, monkeypatch):
    licences = {"scenes-s": "mit", "scenes-l": "cc-by-nc-4.0"}
    monkeypatch.setattr("densecli.pipeline.store_card._licence", lambda name: licences.get(name, "not known"))
    store = tmp_path / "store"
    shutil.copytree(built, store)
    opened = Store.open(store)
    one = opened.find("targets", "scenes-s")
    spec = {k: v for k, v in one.spec.items() if k not in ("kind", "name", "data")}
    of_l = opened.add_column(
        "targets", "scenes-l", {**spec, "architecture": "scenes-l", "weights": "ab" * 32}
    )
    common = {k: spec[k] for k in ("regions", "target", "codec")}
    mixed = {"producer": "mix/1", "mixed": {one.key: 0.5, of_l.key: 0.5}, "rule": "vote", **common}
    of_both = opened.add_column("targets", "mix-vote-scenes-l-scenes-s", mixed)
    again = {"producer": "relabel/1", "features": "0" * 64, **common}
    of_lost = opened.add_column("targets", "relabelled", again)
    for column in (of_l, of_both, of_lost):
        for shard in column.shard_names:
            writer = ShardWriter(column, shard)
            for record in opened.samples(one):
                if record.key in index_of(one, shard, one.receipt(shard)).samples:
                    writer.add(record.key, {"npz": bytes(record.parts[one.part]["npz"])})
            writer.commit()
    # The sources are not shared themselves.
    given = (of_both.full_name, of_lost.full_name)
    share(ShareConfig(store=str(store), out=str(tmp_path / "out"), columns=given))
    lines = (tmp_path / "out" / "README.md").read_text().splitlines()
    [row] = [line for line in lines if line.startswith(f"| {of_both.full_name} |")]
    assert f"| scenes-s, scenes-l | `{one.spec['weights'][:16]}`, `{'ab' * 8}` | mit, cc-by-nc-4.0 |" in row
    [row] = [line for line in lines if line.startswith(f"| {of_lost.full_name} |")]
    assert "| not known | not known | not known |" in row
