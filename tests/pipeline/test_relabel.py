import json
import pickle
import shlex
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import build_here, missing_shards, relabeller_of
from click.testing import CliRunner

from densecli.cli import main
from densecli.core.errors import DenseCLIError, Interrupted
from densecli.core.lock import FolderLock
from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.prompts import TEMPLATES
from densecli.models.text import text_embeddings
from densecli.models.transformer import DenseTransformer
from densecli.pipeline import fill_columns
from densecli.pipeline import relabel as engine
from densecli.pipeline.batcher import live_targets
from densecli.pipeline.fill_columns import LOCK
from densecli.pipeline.relabel import RelabelConfig, prepare, relabel
from densecli.pipeline.relabeller import Relabeller, cosine_error
from densecli.pipeline.teachers import teacher_config
from densecli.pipeline.teachers.labels import retrieve
from densecli.pipeline.unit import Unit
from densecli.shards.codecs import codec_from_spec
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz
from densecli.shards.store import Store
from densecli.train.columns import find_targets

PLAIN = {"weights": {"scenes-s": "random:0"}}
LOSSLESS = {"codec": "fp32", "rank": 96}


@pytest.fixture
def config(tiny):
    """Three photos, two shards, seen by the teacher of features alone."""
    return replace(tiny, teachers=("features-scenes-s",), limit=3, shard_size=2)


@pytest.fixture
def relabel_here():
    """Relabel in this process what is missing; the request."""

    def run(store, **settings):
        request = prepare(RelabelConfig(store=store, **{**PLAIN, **settings}))
        todo = missing_shards([request.regions, request.labels])
        relabeller = relabeller_of(request)
        for shard in todo:
            relabeller.build(Unit(shard=shard, items=()))
        return request

    return run


@pytest.fixture
def compared(photo_of):
    """(relabelled, live) distributions and the error recorded, for every photo of a column of labels."""

    def pairs(request, teacher):
        codec = codec_from_spec(request.labels.spec["codec"])
        for shard in request.store.shard_names:
            error = request.labels.receipt(shard).error
            for record in read_joined([request.store.images, request.regions, request.labels], shard):
                (live,) = live_targets(teacher, [photo_of(record, request.store.canvas)])
                yield codec.decode(decode_npz(record.parts[request.labels.part]["npz"])), live, error

    return pairs


def fresh(tiny, **settings):
    """The live teacher of labels."""
    return teacher_config("scenes-s", replace(tiny, **settings)).load("cpu")


def off(stored, live):
    """Total variation, row by row; what is stored as one class is one."""
    stored = stored.astype(np.float64)
    others = np.where(stored[:, :-2] > 0, 0, live)
    named = np.abs(stored[:, :-2] - (live - others)).sum(1)
    return (named + np.abs(stored[:, -2:].sum(1) - others.sum(1))) / 2


@pytest.mark.parametrize(("shard_size", "batch_size"), [(1, 1), (2, 16), (3, 2)])
@pytest.mark.parametrize("codec", [{}, {"codec": "fp16", "rank": 64}, {"gram_rmse": 0.01}])
def test_relabelled__equals_retrieval_within_the_recorded_error(
    config, relabel_here, compared, shard_size, batch_size, codec
):
    """Logits that are off by at most d move the odds of any set by exp(2 d), so p by tanh(d / 2)."""
    build_here(replace(config, shard_size=shard_size, batch_size=batch_size, **codec))
    request, tau = relabel_here(config.store, tau=0.1), 0.1
    for stored, live, error in compared(request, fresh(config, tau=tau)):
        features = np.tanh(error["max_cosine"] / tau / 2)
        assert 0 < off(stored, live).max() <= features + error["max_tv"] + 1e-5
        if codec.get("codec") == "fp16":
            assert features < 0.01


@pytest.mark.parametrize(("tau", "regions"), [(0.01, "grid-paper"), (0.1, "masks")])
def test_relabelled__lossless_features_equal_retrieval(config, relabel_here, photo_of, tau, regions):
    build_here(replace(config, regions=regions, **LOSSLESS))
    request, teacher = relabel_here(config.store, tau=tau), fresh(config, tau=tau)
    relabeller = relabeller_of(request)
    for shard in request.store.shard_names:
        assert request.labels.receipt(shard).error["max_cosine"] < 3e-6
        for record in read_joined([request.store.images, request.regions, request.features], shard):
            photo = photo_of(record, request.store.canvas)
            pooled = relabeller.pool(decode_npz(record.parts[request.features.part]["npz"]), photo.regions)
            p = retrieve(F.normalize(pooled, dim=1), torch.from_numpy(relabeller.text), tau).numpy()
            np.testing.assert_allclose(p, live_targets(teacher, [photo])[0], atol=1e-5)


def test_relabelled__default_rank_names_the_same_category(config, relabel_here, compared):
    shipped = {"weights": {}, "teachers": ("features-scenes-pvlm",), "limit": 8, "shard_size": 8}
    build_here(replace(config, **shipped))
    request = relabel_here(config.store, weights={})
    teacher = teacher_config("scenes-pvlm", replace(config, weights={})).load("cpu")
    pairs = [(stored, live) for stored, live, _ in compared(request, teacher)]
    agree = np.concatenate([stored.argmax(1) == live.argmax(1) for stored, live in pairs])
    assert len(agree) == 8 * 400 and agree.mean() > 0.975
    assert np.concatenate([off(stored, live) for stored, live in pairs]).mean() < 0.01


@pytest.mark.parametrize("change", ["categories", "templates", "tau", "regions"])
def test_relabelled__new_categories_prompts_and_boxes(
    config, relabel_here, compared, tmp_path, files_of, monkeypatch, change
):
    build_here(replace(config, codec="fp16", rank=64))
    first = relabel_here(config.store, tau=0.1, regions="grid-paper")
    before = files_of(Path(config.store))
    (tmp_path / "two.json").write_text('[{"name": "boat", "thing": true}, {"name": "sky", "thing": false}]')
    monkeypatch.setitem(TEMPLATES, "other", ("the {}", "photo with the {}"))
    new = {
        "categories": str(tmp_path / "two.json"),
        "templates": "other",
        "tau": 0.2,
        "regions": "grid-clipself",
    }
    settings = {"tau": 0.1, "regions": "grid-paper"} | {change: new[change]}
    request = relabel_here(config.store, **settings)
    for stored, live, error in compared(request, fresh(config, **settings)):
        assert stored.shape == (361 if change == "regions" else 400, 4 if change == "categories" else 22)
        features = np.tanh(error["max_cosine"] / settings["tau"] / 2)
        assert off(stored, live).max() <= features + error["max_tv"] + 1e-5
    assert request.labels.id != first.labels.id
    after = files_of(Path(config.store))
    assert {name: after[name] for name in before} == before


@pytest.fixture
def text_file(tmp_path):
    """The text tower's own embeddings, thrice as long."""
    model, _ = load_model("scenes-s", "random:0")
    path = tmp_path / "text.npy"
    np.save(path, 3 * text_embeddings(model, load_categories("scenes").names).numpy())
    return str(path)


def test_text_embeddings__need_no_weights_and_no_model(config, relabel_here, monkeypatch, text_file):
    build_here(config)
    by_tower = relabel_here(config.store)

    def never(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(engine, "load_model", never)
    monkeypatch.setattr(engine, "located", never)
    by_file = relabel_here(config.store, weights={}, text_embeddings=text_file)
    assert by_file.labels.id != by_tower.labels.id
    assert by_file.labels.spec["target"]["text"].keys() == {"sha256"}
    for shard in by_file.store.shard_names:
        a, b = (read_joined([request.labels], shard) for request in (by_file, by_tower))
        for one, other in zip(a, b, strict=True):
            p, q = (decode_npz(record.parts["relabel-scenes-s"]["npz"]) for record in (one, other))
            np.testing.assert_allclose(p["p"], q["p"], atol=2e-3)


def test_image_tower__is_never_asked(config, relabel_here, monkeypatch):
    build_here(config)

    def never(*args, **kwargs):
        raise AssertionError("the image tower was asked")

    monkeypatch.setattr(DenseTransformer, "dense_and_context", never)
    monkeypatch.setattr(DenseTransformer, "encode_image", never)
    relabel_here(config.store)


def test_relabel__goes_on_where_it_stopped(config, relabel_here, files_of):
    build_here(replace(config, limit=5))
    settings = {"store": config.store, "regions": "grid-densevlm", **PLAIN}
    assert relabel(RelabelConfig(**settings, dry_run=True))["status"] == "planned"
    before = files_of(Path(config.store))
    request = prepare(RelabelConfig(**settings))
    relabeller_of(request).build(Unit(shard="000001", items=()))
    first = files_of(Path(config.store))
    assert first.keys() > before.keys()

    summary = relabel(RelabelConfig(**settings))
    assert (summary["status"], summary["shards"], summary["samples"]) == ("built", 2, 3)
    assert [c["name"] for c in summary["columns"]] == ["grid-densevlm", "relabel-scenes-s"]
    finished = files_of(Path(config.store))
    assert {name: finished[name] for name in first} == first
    assert relabel(RelabelConfig(**settings))["status"] == "up to date"
    assert files_of(Path(config.store)) == finished


def test_relabel__workers_get_all_they_need(config, relabel_here, monkeypatch, files_of):
    """What is sent to another process builds the same bytes there."""
    build_here(config)

    def run_units(units, sent, max_attempts, stopping):
        assert len(sent) < 10_000
        yield from (pickle.loads(sent).builder().build(unit) for unit in units)

    monkeypatch.setattr(fill_columns, "connected", lambda address, workers: nullcontext())
    monkeypatch.setattr(fill_columns, "WorkerPool", lambda work, size, say: pickle.dumps(work))
    monkeypatch.setattr(fill_columns, "run_units", run_units)
    assert relabel(RelabelConfig(store=config.store, workers=2, **PLAIN))["samples"] == 3
    labels = prepare(RelabelConfig(store=config.store, **PLAIN)).labels
    tars = {name: data for name, (*_, data) in files_of(Path(labels.url)).items() if name.endswith(".tar")}
    shutil.rmtree(labels.url)
    relabel_here(config.store)
    assert len(tars) == 2
    assert {name: files_of(Path(labels.url))[name][2] for name in tars} == tars


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_relabel__a_signal_ends_it_in_good_order_and_the_same_call_goes_on(
    config, relabel_here, monkeypatch, number, tmp_path
):
    build_here(replace(config, shard_size=1))
    build = Relabeller.build

    def interrupted(self, unit, stop):
        if unit.shard == "000001":
            signal.raise_signal(number)
        return build(self, unit, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Relabeller, "build", interrupted)
        with pytest.raises(Interrupted, match=f"{number.name} stopped the relabelling; 1 of 3") as caught:
            relabel(RelabelConfig(store=config.store, **PLAIN))
    assert caught.value.exit_code == 128 + number
    labels = prepare(RelabelConfig(store=config.store, **PLAIN)).labels
    assert labels.missing() == ["000001", "000002"]
    assert not list(Path(config.store).rglob("*.tmp"))
    with (
        FolderLock(labels.url, "It", name=LOCK),
        pytest.raises(DenseCLIError, match="is being written by process"),
    ):
        relabel(RelabelConfig(store=config.store, **PLAIN))
    assert relabel(RelabelConfig(store=config.store, **PLAIN))["shards"] == 2


def test_column__says_where_it_came_from(config, relabel_here):
    build, _ = build_here(config)
    features, labels = build.columns()[2], relabel_here(config.store).labels
    assert labels.spec["features"] == features.key
    assert labels.spec["regions"] == build.columns()[1].key
    store = Store.open(config.store)
    assert store.find("targets", "relabel-scenes-s").info["features"] == f"{features.name}-{features.id}"
    assert store.find("targets", "relabel-scenes-s").info["random_weights"] is True
    columns = [labels.id, *(relabel_here(config.store, tau=tau).labels.id for tau in (0.02, 0.03))]
    assert len(set(columns)) == 3


def test_train__chooses_between_retrieved_and_relabelled(config, relabel_here):
    build_here(replace(config, teachers=("scenes-s", "features-scenes-s")))
    labels = relabel_here(config.store).labels
    store = Store.open(config.store)
    for teacher in ("relabel-scenes-s", f"relabel-scenes-s-{labels.id}"):
        assert find_targets(store, ["labels"], teachers=[teacher], student="scenes-s")["labels"] == replace(
            labels, info=store.find("targets", "relabel-scenes-s").info
        )
    found = find_targets(store, ["labels"], teachers=["scenes-s"], student="scenes-s")
    assert found["labels"].name == "scenes-s"
    with pytest.raises(DenseCLIError, match="2 labels columns") as caught:
        find_targets(store, ["labels"], student="scenes-s")
    assert labels.id in caught.value.hint


def test_train__a_store_of_features_lacks_only_relabelling(config, relabel_here):
    build_here(config)
    store = Store.open(config.store)
    for teachers in ([], ["relabel-scenes-s"]):
        with pytest.raises(DenseCLIError, match="no labels column") as caught:
            find_targets(store, ["labels"], teachers=teachers, student="scenes-s")
        (command,) = caught.value.commands
        assert command == f"densecli relabel --store {store.root} --teacher features-scenes-s"
    words = [*shlex.split(command)[1:], "--weights", "scenes-s=random:0", "--json", "-"]
    planned = CliRunner().invoke(main, [*words, "--dry-run"])
    assert planned.exit_code == 0 and '"status": "planned"' in planned.output
    made = CliRunner().invoke(main, words)
    assert made.exit_code == 0 and "relabel-scenes-s-" in made.output and "built, 3 photos" in made.output
    assert find_targets(store, ["labels"], student="scenes-s")["labels"].name == "relabel-scenes-s"


@pytest.fixture
def crops(config):
    """The build of three photos' crops of two views, losslessly."""
    return replace(config, teachers=("crops-scenes-s",), views=2, codec="fp32", regions="grid-densevlm")


def test_crops__labels_of_the_stored_views_are_softmax_of_crop_and_text(crops, relabel_here, photo_of):
    """KL distillation of logits (DenseVLM, table 1) reads p = softmax(crop [CLS] . text / tau)."""
    build, _ = build_here(crops)
    request = relabel_here(crops.store, teacher="crops-scenes-s", tau=0.1)
    assert request.labels.name == "relabel-crops-scenes-s" and request.labels.target_kind == "crop-labels"
    assert request.labels.spec["target"]["views"] == 2
    teacher = build.targets[0][0].load("cpu")
    text = text_embeddings(teacher.model, load_categories("scenes").names).numpy()
    for shard in request.store.shard_names:
        columns = [request.store.images, request.regions, request.labels]
        for record in read_joined(columns, shard):
            stored = decode_npz(record.parts[request.labels.part]["npz"])
            photo = photo_of(record, request.store.canvas)
            assert stored["views"].tolist() == build.targets[0][0].stored_views(photo).tolist()
            cosines = live_targets(teacher, [photo])[0] @ text.T
            live = np.exp(cosines / 0.1) / np.exp(cosines / 0.1).sum(axis=1, keepdims=True)
            p = codec_from_spec(request.labels.spec["codec"]).decode(stored)
            assert off(p, live).max() <= request.labels.receipt(shard).error["max_tv"] + 1e-4
            assert (
                np.array(stored["thing"]) == load_categories("scenes").thing_flags()[live.argmax(1)]
            ).all()


def test_crops__int8_rows_are_within_the_recorded_error(crops, relabel_here, compared):
    build, _ = build_here(replace(crops, codec="int8"))
    request, tau = relabel_here(crops.store, teacher="crops-scenes-s", tau=0.1), 0.1
    teacher = build.targets[0][0].load("cpu")
    text = text_embeddings(teacher.model, load_categories("scenes").names).numpy()
    for stored, live, error in compared(request, teacher):
        p = np.exp(live @ text.T / tau) / np.exp(live @ text.T / tau).sum(axis=1, keepdims=True)
        assert 0 < off(stored, p).max() <= np.tanh(error["max_cosine"] / tau / 2) + error["max_tv"] + 1e-5


def test_crops__other_boxes_have_other_crops(crops):
    build_here(crops)
    with pytest.raises(DenseCLIError, match="of the boxes of grid-densevlm alone") as caught:
        settings = {"teacher": "crops-scenes-s", "regions": "grid-paper", **PLAIN}
        prepare(RelabelConfig(store=crops.store, **settings))
    assert "features" in caught.value.hint
    with pytest.raises(DenseCLIError, match="no columns of features"):
        prepare(RelabelConfig(store=crops.store, **PLAIN))


def test_refused__what_is_not_there_or_does_not_fit(config, tmp_path):
    build_here(replace(config, teachers=("scenes-s",)))

    def refused(**settings):
        with pytest.raises(DenseCLIError) as caught:
            relabel(RelabelConfig(store=config.store, **{**PLAIN, **settings}))
        return f"{caught.value} {caught.value.hint}"

    assert "no columns of features or crops named features-scenes-s" in refused(teacher="features-scenes-s")
    assert "--teacher features-MODEL" in refused()
    request, _ = build_here(config)
    assert "not made with the weights random:1" in refused(weights={"scenes-s": "random:1"})
    assert "not used here" in refused(weights={"scenes-l": "random:0"})
    assert "needs a file of boxes" in refused(regions="proposals")
    np.save(tmp_path / "narrow.npy", np.eye(20, 32, dtype=np.float32))
    before = len(Store.open(config.store).columns())
    assert "embeddings of 32 numbers" in refused(text_embeddings=str(tmp_path / "narrow.npy"))
    assert len(Store.open(config.store).columns()) == before
    Path(request.columns()[2].receipt_url("000001")).unlink()
    assert "not finished: 1 of 2" in refused()
    build_here(replace(config, rank=8))
    assert "has 2 columns of features" in refused()


def test_cosine_error__holds_for_means_of_tokens_that_are_off():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(40, 12)) + 1
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    error = rng.normal(size=tokens.shape)
    error *= 0.1 / np.linalg.norm(error, axis=1, keepdims=True)
    for share in rng.dirichlet(np.full(40, 0.05), size=50):
        exact, kept = share @ tokens, share @ (tokens + error)
        change = np.linalg.norm(exact / np.linalg.norm(exact) - kept / np.linalg.norm(kept))
        assert 0 < change <= cosine_error(torch.from_numpy(kept)[None], 0.1)
    assert cosine_error(torch.zeros(1, 12), 0.1) == 2
    assert cosine_error(torch.zeros(0, 12), 0.1) == 0


def test_proposals__are_added_from_their_file(config, relabel_here, tmp_path):
    build_here(config)
    images = [{"id": i, "file_name": str(i)} for i in range(2)]
    boxes = [{"image_id": 0, "bbox": [10, 10, 40, 30]}, {"image_id": 0, "bbox": [0, 0, 90, 90]}]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    request = relabel_here(config.store, regions="proposals", proposals=str(tmp_path / "boxes.json"))
    rows = [
        len(decode_npz(record.parts[request.labels.part]["npz"])["count"])
        for shard in request.store.shard_names
        for record in read_joined([request.regions, request.labels], shard)
    ]
    assert rows == [2, 0, 0]
    # Once it is there, the file is not needed.
    assert relabel_here(config.store, regions="proposals").labels.id == request.labels.id
