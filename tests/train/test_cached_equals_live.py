"""Cached equals live: a step on stored targets has the loss and the gradients of one that asks the teachers,
which is in tests/support/live.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import build_missing, relabeller_of
from live import LIVE, PAPER, SIDE, Live, Seen, Teachers, World
from registries import put

from densecli.core.signals import Stop
from densecli.models import registry
from densecli.models.architecture import Architecture
from densecli.models.checkpoints import load_model
from densecli.models.vfm_architecture import VFMArchitecture
from densecli.models.vfms import VFMS
from densecli.pipeline.build_request import prepare
from densecli.pipeline.config import SELF_RANK, BuildConfig
from densecli.pipeline.relabel import prepare as prepare_relabelling
from densecli.pipeline.relabel_config import RelabelConfig
from densecli.pipeline.teachers import TeacherConfig
from densecli.pipeline.teachers.crops import CropsConfig
from densecli.pipeline.teachers.labels import LabelsConfig
from densecli.pipeline.unit import Unit
from densecli.shards.codecs import LowRank, Rows
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz
from densecli.train.batch import Batch
from densecli.train.distillation import TrainConfig, make_trainer
from densecli.train.distillation_recipe import Distillation
from densecli.train.methods import METHODS
from densecli.train.trainer import Trainer

pytestmark = pytest.mark.slow

DEFAULT, LOSSLESS = (1e-3, 0.999), (1e-5, 0.99999)
"""The largest relative difference of the loss, and the smallest cosine of the gradients."""
OF_STORED_CROPS = (5e-3, 0.999)
"""For labels of crops, whose error tau = 0.01 magnifies a hundredfold."""

PROJECTION = "heads.region_cosine.linear.weight"

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VISION = {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
ROTARY = {"mlp_ratio": 2.6667, "rope": True, "pt_hw_seq_len": 16, "naiveswiglu": True, "subln": True}
EVA = {"embed_dim": 64, "vision_cfg": {**VISION, **ROTARY, "eva_model_name": "small"}, "text_cfg": TEXT}
VIT = {"embed_dim": 48, "vision_cfg": VISION, "text_cfg": TEXT}


def built(config: BuildConfig, change: Callable[[TeacherConfig], TeacherConfig] = lambda same: same) -> str:
    """The store, in this process. change: of the teachers' settings."""
    request, source = prepare(config)
    teachers = [change(teacher) for teacher, _ in request.targets]
    request = replace(request, targets=tuple((teacher, teacher.spec()) for teacher in teachers))
    build_missing(request, source, config.shard_size)
    return request.store.root


def build_store(world: World, root: Path, *, lossless: bool) -> str:
    teachers = (
        world.pvlm,
        *(f"{kind}-{world.student}" for kind in ("crops", "self", "refiner")),
        f"crops-{world.pvlm}",
        world.vfm,
    )
    config = build_config(world, root, teachers)
    store = built(config, without_loss) if lossless else built(config)
    relabel_crops(world, store, lossless=lossless)
    return store


def build_config(world: World, root: Path, teachers: tuple[str, ...]) -> BuildConfig:
    return replace(
        world.data,
        store=str(root / "store"),
        teachers=teachers,
        side=SIDE,
        weights=world.weights,
        categories=world.categories,
        text_embeddings=world.texts.get(world.pvlm),
        views=1,
        student_patch=world.model(world.student).patch_size,
        device="cpu",
    )


def relabel_crops(world: World, store: str, *, lossless: bool) -> None:
    """Adds the labels of the P-VLM's crops."""
    request = prepare_relabelling(
        RelabelConfig(
            store=store,
            teacher=f"crops-{world.pvlm}",
            weights={name: path for name, path in world.weights.items() if name == world.pvlm},
            categories=world.categories,
            text_embeddings=world.texts.get(world.pvlm),
        )
    )
    if lossless:
        retrieval = replace(request.retrieval, k=10_000, dtype="fp32")
        labels = request.labels
        own = {name: value for name, value in labels.spec.items() if name not in ("kind", "name", "data")}
        spec = {**own, "codec": retrieval.codec().spec}
        column = request.store.column("targets", labels.name, spec, labels.info)
        request = replace(request, retrieval=retrieval, labels=column)
    relabeller = relabeller_of(request)
    for shard in request.labels.missing():
        relabeller.build(Unit(shard=shard, items=()), Stop())


def without_loss(config: TeacherConfig) -> TeacherConfig:
    match config:
        case LabelsConfig():
            return replace(config, k=10_000, dtype="fp32")
        case CropsConfig():
            return replace(config, codec=Rows(dtype="fp32"))
    return replace(config, codec=LowRank(rank=10_000, dtype="fp32"))


def step(
    trainer: Trainer[Distillation], batch: Batch, world: World, live: Live
) -> tuple[float, float, float]:
    """The loss of a step on stored targets, that of a live one, and the cosine of their whole gradients."""
    # A projection begins with random weights, which the step changes.
    heads = {
        name: p.detach().clone().requires_grad_()
        for name, p in trainer.model.named_parameters()
        if name == PROJECTION
    }
    cached = trainer.train_step([batch])["loss"]
    student, _ = load_model(world.student, world.weights.get(world.student))
    mode, live_loss = live
    dense, context = student.dense_and_context(student.prepare(batch.images), mode)
    seen = Seen(
        batch=batch,
        teachers=Teachers(world=world),
        dense=dense,
        q=context.get("q"),
        projection=heads.get(PROJECTION),
    )
    loss = live_loss(seen)
    trained = {
        name.removeprefix("student."): p.grad.flatten()
        for name, p in trainer.model.named_parameters()
        if p.grad is not None
    }
    own = dict(student.named_parameters()) | heads
    gradients = torch.autograd.grad(loss, [own[name] for name in trained])
    ours, theirs = (torch.cat([g.flatten() for g in each]).double() for each in (trained.values(), gradients))
    assert theirs.norm() > 0
    return cached, loss.item(), F.cosine_similarity(ours, theirs, dim=0).item()


def trainer_of(world: World, store: str, run: Path, **settings: Any) -> Trainer[Distillation]:
    defaults = {
        "weights": world.weights.get(world.student),
        "text_embeddings": world.texts.get(world.student),
        "spatial_side": SIDE,
        "batch_size": world.data.limit,
        "max_steps": 1,
        "workers": 0,
        "device": "cpu",
    }
    return make_trainer(
        TrainConfig(store=store, run=str(run), student=world.student, **{**defaults, **settings})
    )


def assert_equal(
    trainer: Trainer[Distillation], world: World, live: Live, allowed: tuple[float, float]
) -> None:
    cached, asked, cosine = step(trainer, next(trainer.loader.batches(0)), world, live)
    assert abs(cached / asked - 1) <= allowed[0] and cosine >= allowed[1]


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    """Real classes of networks, a few layers of them."""
    with pytest.MonkeyPatch.context() as patch:
        for family, config in (("eva", EVA), ("vit", VIT)):
            small = Architecture(name=f"small-{family}", family=family, config=config)
            put(patch, registry.MODELS, small.name, small)
        small = VFMArchitecture(name="small-vfm", timm="vit_tiny_patch16_224", patch=16)
        put(patch, VFMS, small.name, small)
        yield


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    """By name. `eva`, `vit`: a student of that family and a P-VLM of the other with random weights, which is
    sure of some regions and not of others. `b16`: the same of full size. `scenes`: the trained ones."""
    folder = tmp_path_factory.mktemp("texts")

    def texts(model: str, seed: int) -> str:
        rng, width = np.random.default_rng(seed), registry.resolve(model).clip_config()["embed_dim"]
        path, apart = folder / f"{model}-{seed}.npy", 0.025 * width**0.5
        np.save(path, rng.normal(size=(1, width)) + apart * rng.normal(size=(133, width)))
        return str(path)

    @cache
    def world(name: str) -> World:
        data = BuildConfig(dataset="scenes", split="val", limit=2)
        if name == "scenes":
            models = {"student": "scenes-s", "pvlm": "scenes-pvlm", "categories": "scenes"}
            weights = {"small-vfm": "random:0", "refiner-scenes-s": "random:0"}
            return World(**models, vfm="small-vfm", weights=weights, texts={}, data=data)
        student, pvlm = PAIRS[name]
        return World(
            student=student,
            pvlm=pvlm,
            vfm="small-vfm",
            categories="133",
            weights=dict.fromkeys((student, pvlm, f"refiner-{student}", "small-vfm"), "random:0"),
            texts={student: texts(student, 1), pvlm: texts(pvlm, 2)},
            data=replace(data, canvas=128),
        )

    return world


PAIRS = {
    "eva": ("small-eva", "small-vit"),
    "vit": ("small-vit", "small-eva"),
    "b16": ("eva02-b16", "laion-vit-b16"),
}


@pytest.fixture(scope="module")
def stores(
    worlds: Callable[[str], World], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, bool], str]:
    @cache
    def store(name: str, lossless: bool) -> str:
        return build_store(worlds(name), tmp_path_factory.mktemp(name), lossless=lossless)

    return store


@pytest.mark.parametrize("method", LIVE)
@pytest.mark.parametrize("name", ["eva", "vit", "scenes"])
@pytest.mark.parametrize("lossless", [False, True], ids=["default", "lossless"])
def test_step__cached_equals_live(worlds, stores, tmp_path, name: str, method: str, lossless: bool) -> None:
    world = worlds(name)
    # Its crops are of the P-VLM, which for the method alone is that of the data set.
    asked = {"teachers": (f"crops-{world.pvlm}",)} if method == "feature-kd" else {}
    trainer = trainer_of(world, stores(name, lossless), tmp_path, method=method, **asked)
    default = OF_STORED_CROPS if method == "logit-kd" else DEFAULT
    assert_equal(trainer, world, LIVE[method], LOSSLESS if lossless else default)


@pytest.mark.parametrize("method", ["densevlm", "clipself", "sc-clipself", "r-sc-clipself"])
def test_step__a_store_of_teachers_in_fp16_equals_live_ones_in_fp32(worlds, tmp_path, method: str) -> None:
    world = worlds("scenes")
    half = replace(world, data=replace(world.data, teacher_precision="fp16"))
    store = build_store(half, tmp_path, lossless=False)
    trainer = trainer_of(world, store, tmp_path / "run", method=method)
    assert_equal(trainer, world, LIVE[method], DEFAULT)


@pytest.fixture(scope="module")
def of_masks(worlds, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, str]:
    """The generated world with its masks as regions, on a canvas of another size than the scenes."""
    world = worlds("scenes")
    data = replace(world.data, regions="masks", canvas=72)
    teachers = {"teachers": (world.pvlm, f"crops-{world.student}"), "categories": world.categories}
    store = str(tmp_path_factory.mktemp("masks") / "store")
    return world, built(replace(data, **teachers, store=store, device="cpu"))


@pytest.mark.parametrize("method", ["densevlm", "clipself"])
def test_step__cached_equals_live_of_masks(of_masks, tmp_path, method: str) -> None:
    world, store = of_masks
    trainer = trainer_of(world, store, tmp_path, method=method)
    assert next(trainer.loader.batches(0)).masks is not None
    assert_equal(trainer, world, LIVE[method], DEFAULT)


@pytest.fixture(scope="module")
def full_size(worlds: Callable[[str], World], tmp_path_factory: pytest.TempPathFactory) -> tuple[World, str]:
    """One photo and the columns of the two methods below."""
    world = worlds("b16")
    weights = {name: world.weights[name] for name in (world.student, world.pvlm)}
    world = replace(world, weights=weights, data=replace(world.data, limit=1))
    teachers = (world.pvlm, f"crops-{world.student}", f"self-{world.student}")
    return world, built(build_config(world, tmp_path_factory.mktemp("b16"), teachers))


@pytest.mark.parametrize("method", ["densevlm", "sc-clipself"])
def test_step__cached_equals_live_at_full_size(full_size, tmp_path, method: str) -> None:
    world, store = full_size
    assert_equal(trainer_of(world, store, tmp_path, method=method), world, LIVE[method], DEFAULT)


def test_step__every_method_has_a_live_reference() -> None:
    assert set(METHODS) == set(LIVE)


CONTEXT: Live = (PAPER, Seen.context)
OF_GRAM: dict[str, Live] = {"context": CONTEXT, "spatial:gram": ("value", Seen.spatial_of_gram)}


def assert_within_bound(world: World, store: str, run: Path) -> None:
    """The context loss of each photo alone changes by less than what is stored with the photo."""
    trainer = trainer_of(world, store, run, losses={"context": 1.0}, mode=PAPER, batch_size=1)
    column = trainer.recipe.targets["gram"]
    bounds = {
        record.key: decode_npz(record.parts[column.part]["npz"])["bound"]
        for shard in trainer.recipe.store.shard_names
        for record in read_joined([column], shard)
    }
    initial = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    for batch in trainer.loader.batches(0):
        trainer.model.load_state_dict(initial)
        cached, asked, _ = step(trainer, batch, world, CONTEXT)
        assert 0 < abs(cached - asked) <= bounds[batch.keys[0]][0]


@pytest.mark.parametrize("name", ["eva", "scenes"])
def test_context__changes_by_less_than_the_bound_of_each_photo(worlds, stores, tmp_path, name: str) -> None:
    assert_within_bound(worlds(name), stores(name, False), tmp_path)


@pytest.fixture(scope="module")
def photos(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int | None], tuple[World, str]]:
    """Real photos and a real DINOv2-S, by its rank; None for the default."""
    weights = {"dinov2-vits14": str(shared_data / "weights" / "dinov2_vits14_fp16.safetensors")}
    data = BuildConfig(
        dataset="coco", data=str(shared_data / "coco128"), split="train2017", limit=2, canvas=512
    )

    @cache
    def of_rank(rank: int | None) -> tuple[World, str]:
        root = str(tmp_path_factory.mktemp("photos") / "store")
        teachers = {"teachers": tuple(weights), "weights": weights}
        store = built(replace(data, **teachers, store=root, rank=rank, device="cpu"))
        world = World(
            student="small-eva",
            pvlm="",
            vfm="dinov2-vits14",
            categories="133",
            weights={"small-eva": "random:0", **weights},
            texts={},
            data=data,
        )
        return world, store

    return of_rank


@pytest.mark.parametrize(("loss", "rank"), [("context", None), ("spatial:gram", SELF_RANK)])
def test_step__cached_equals_live_of_real_photos(photos, tmp_path, loss: str, rank: int | None) -> None:
    world, store = photos(rank)
    mode, _ = OF_GRAM[loss]
    assert_equal(
        trainer_of(world, store, tmp_path, losses={loss: 1.0}, mode=mode), world, OF_GRAM[loss], DEFAULT
    )


def test_context__changes_by_less_than_the_bound_of_each_real_photo(photos, tmp_path) -> None:
    assert_within_bound(*photos(None), tmp_path)
