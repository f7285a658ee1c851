"""Cached equals live: a step on stored targets has the loss and the gradients of one that asks the teachers.

The live side is written here, from the papers, out of plain models and torch: it shares no code with the
codecs, the readers and the loss terms.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.ops import roi_align

from models import registry, vfm
from models.architecture import Architecture
from models.categories import load_categories
from models.checkpoints import load_model
from models.dense import DenseCLIP
from models.refiner import load_refiner
from models.text import text_embeddings
from models.vfm import VFM, VFMArchitecture, load_vfm
from pipeline.config import BuildConfig
from pipeline.job import missing_shards, prepare, unit_of
from pipeline.teachers import SELF_RANK, CropsConfig, LabelsConfig, TeacherConfig
from shards.codecs import LowRank, Rows
from shards.reader import decode_npz, read_joined
from train.data import Batch
from train.methods import METHODS
from train.trainer import TrainConfig, Trainer

TAU, THETA, SPATIAL_TAU, SIDE = 0.01, 0.3, 0.2, 5
DEFAULT, LOSSLESS = (1e-3, 0.999), (1e-5, 0.99999)
"""The largest relative difference of the loss, and the smallest cosine of the gradients."""

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VISION = {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
ROTARY = {"mlp_ratio": 2.6667, "rope": True, "pt_hw_seq_len": 16, "naiveswiglu": True, "subln": True}
EVA = {"embed_dim": 64, "vision_cfg": {**VISION, **ROTARY, "eva_model_name": "small"}, "text_cfg": TEXT}
VIT = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": TEXT}


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Networks and photos. weights, texts (files of text embeddings): by model, if not its own."""

    student: str
    pvlm: str
    vfm: str
    categories: str
    weights: dict[str, str]
    texts: dict[str, str]
    data: BuildConfig

    def model(self, name: str) -> DenseCLIP:
        return network(name, self.weights.get(name))


@cache
def network(name: str, weights: str | None) -> DenseCLIP:
    return load_model(name, weights)[0]


@cache
def vision_network(name: str, weights: str) -> VFM:
    return load_vfm(name, weights)


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """What the live side asks, in the step."""

    world: World

    @torch.no_grad()
    def labels(self, batch: Batch) -> Tensor:
        """(R, D) softmax(cos / tau) of the P-VLM's regions and its texts."""
        model = self.world.model(self.world.pvlm)
        regions = pooled(model.dense(model.prepare(batch.images)), batch)
        return torch.softmax(regions @ self.texts(self.world.pvlm).T / TAU, dim=1)

    @torch.no_grad()
    def texts(self, name: str) -> Tensor:
        """(D, C) unit text embeddings of the categories, from a file or the model's own text tower."""
        if name in self.world.texts:
            return F.normalize(torch.from_numpy(np.load(self.world.texts[name])).float(), dim=1)
        return text_embeddings(self.world.model(name), load_categories(self.world.categories).names)

    @torch.no_grad()
    def crops(self, batch: Batch) -> Tensor:
        """(R, C) [CLS] of each box's own pixels, aspect kept, centred on black."""
        model = self.world.model(self.world.student)
        side, crops = model.arch.native_side, []
        canvas = batch.images.shape[-1]
        for box, image in zip(batch.boxes.tolist(), batch.batch_index.tolist(), strict=True):
            left, top, right, bottom = (round(x * canvas) for x in box)
            crop = Image.fromarray(batch.images[image].permute(1, 2, 0).numpy()).crop(
                (left, top, max(right, left + 1), max(bottom, top + 1))
            )
            scale = side / max(crop.size)
            width, height = (max(1, round(length * scale)) for length in crop.size)
            square = Image.new("RGB", (side, side))
            square.paste(
                crop.resize((width, height), Image.BICUBIC), ((side - width) // 2, (side - height) // 2)
            )
            crops.append(torch.from_numpy(np.array(square)).permute(2, 0, 1))
        return model.encode_image(model.normalize(torch.stack(crops)))

    @torch.no_grad()
    def self(self, batch: Batch) -> Tensor:
        """(B, C, h, w) unit tokens of the student as it came."""
        model = self.world.model(self.world.student)
        return model.dense(model.prepare(batch.images))

    @torch.no_grad()
    def refined(self, batch: Batch) -> Tensor:
        """(R, SIDE * SIDE, C) unit tokens of the boxes, by the student's Refiner."""
        student = self.world.student
        model = load_refiner(
            student, self.world.weights.get(student), self.world.weights[f"refiner-{student}"], "cpu"
        )
        entry = model.entry(model.clip.prepare(batch.images))
        return model.refine(entry, batch.boxes, batch.batch_index, SIDE)

    @torch.no_grad()
    def gram(self, batch: Batch) -> Tensor:
        """(B, C, h, w) unit tokens of the VFM, on the student's grid."""
        model = vision_network(self.world.vfm, self.world.weights[self.world.vfm])
        return model(model.prepare(batch.images, self.world.model(self.world.student).patch_size))


def pooled(dense: Tensor, batch: Batch, side: int = 1) -> Tensor:
    """(R, C) unit regions, or (R, side * side, C) tokens of them."""
    height, width = dense.shape[-2:]
    scale = torch.tensor([width, height, width, height])
    rois = torch.cat([batch.batch_index[:, None].float(), batch.boxes * scale], dim=1)
    tokens = roi_align(dense.float(), rois, side, aligned=True).flatten(2).transpose(1, 2)
    return F.normalize(tokens[:, 0], dim=1) if side == 1 else tokens


def kl(student: Tensor, teacher: Tensor, thing: Tensor) -> Tensor:
    """DenseVLM, eqs 3-5: one region after the other."""
    losses = []
    for logits, p in zip(student / TAU, teacher, strict=True):
        if p.max() <= THETA:
            continue
        among = thing if thing[p.argmax()] else torch.ones_like(thing)
        p = p[among] / p[among].sum()
        losses.append((torch.xlogy(p, p) - p * torch.log_softmax(logits[among], dim=0)).sum())
    assert losses
    return torch.stack(losses).mean()


def pseudo_label(student: Tensor, teacher: Tensor) -> Tensor:
    sure = teacher.amax(dim=1) > THETA
    assert sure.any()
    return F.cross_entropy(student[sure] / TAU, teacher[sure].argmax(dim=1))


def correlations(tokens: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, N, N) cosines of tokens."""
    x = F.normalize(tokens.float().flatten(2), dim=1)
    return x.transpose(1, 2) @ x


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """DeCLIP: the mean norm of the rows of R_vfm - R_student."""
    return (correlations(teacher) - correlations(student)).norm(dim=2).mean()


def scd(student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """R-SC: cross entropy of correlations within a box, mean over rows and boxes."""
    theirs, ours = (
        x @ x.transpose(1, 2) / SPATIAL_TAU
        for x in (teacher, pooled(F.normalize(student, dim=1), batch, SIDE))
    )
    return -(theirs.softmax(dim=2) * ours.log_softmax(dim=2)).sum(dim=2).mean()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A live step: what the student sees of a batch, and its terms, each of which asks its teacher."""

    batch: Batch
    teachers: Teachers
    dense: Tensor
    q: Tensor | None

    @property
    def regions(self) -> Tensor:
        return pooled(self.dense, self.batch)

    @property
    def cosines(self) -> Tensor:
        return self.regions @ self.teachers.texts(self.teachers.world.student).T

    def region_kl(self) -> Tensor:
        thing = torch.from_numpy(load_categories(self.teachers.world.categories).thing_flags())
        return kl(self.cosines, self.teachers.labels(self.batch), thing)

    def region_text(self) -> Tensor:
        return pseudo_label(self.cosines, self.teachers.labels(self.batch))

    def region_cosine(self) -> Tensor:
        return 1 - F.cosine_similarity(self.regions, self.teachers.crops(self.batch)).mean()

    def context(self) -> Tensor:
        return distance(self.q, self.teachers.gram(self.batch))

    def spatial(self) -> Tensor:
        return scd(self.dense, pooled(self.teachers.self(self.batch), self.batch, SIDE), self.batch)

    def spatial_of_boxes(self) -> Tensor:
        return scd(self.dense, self.teachers.refined(self.batch), self.batch)

    def spatial_of_gram(self) -> Tensor:
        return scd(self.dense, pooled(self.teachers.gram(self.batch), self.batch, SIDE), self.batch)


PAPER = "qq+scale+rope+unit"
Live = tuple[str, Callable[[Seen], Tensor]]
LIVE: dict[str, Live] = {
    "densevlm": ("value", Seen.region_kl),
    "regiontext": ("value", Seen.region_text),
    "clipself": ("value", Seen.region_cosine),
    "declip": (PAPER, lambda seen: seen.region_cosine() + 0.25 * seen.context()),
    "declip-released": ("qq", lambda seen: seen.region_cosine() + 0.1 * seen.context()),
    "sc-clipself": ("value", lambda seen: seen.region_cosine() + 0.2 * seen.spatial()),
    "r-sc-clipself": ("value", lambda seen: seen.region_cosine() + 0.2 * seen.spatial_of_boxes()),
    "r-sc-regiontext": ("value", lambda seen: seen.region_text() + 0.2 * seen.spatial_of_boxes()),
    "r-sc-v": ("value", Seen.spatial_of_boxes),
    "sc-regiontext": ("value", lambda seen: seen.region_text() + 0.2 * seen.spatial()),
}
"""How the student is read out, and the loss."""


def built(config: BuildConfig, change: Callable[[TeacherConfig], TeacherConfig] = lambda same: same) -> str:
    """The store, in this process. change: of the teachers' settings."""
    job, source = prepare(config)
    teachers = [change(teacher) for teacher, _ in job.targets]
    job = replace(job, targets=tuple((teacher, teacher.spec()) for teacher in teachers))
    builder = job.builder()
    for shard in missing_shards(job.columns()):
        builder.build(unit_of(source, shard, config.shard_size))
    return job.store.root


def build_store(world: World, root: Path, *, lossless: bool) -> str:
    config = replace(
        world.data,
        store=str(root / "store"),
        teachers=(
            world.pvlm,
            *(f"{kind}-{world.student}" for kind in ("crops", "self", "refiner")),
            world.vfm,
        ),
        side=SIDE,
        weights=world.weights,
        categories=world.categories,
        text_embeddings=world.texts.get(world.pvlm),
        views=1,
        student_patch=world.model(world.student).patch_size,
        device="cpu",
    )
    return built(config, without_loss) if lossless else built(config)


def without_loss(config: TeacherConfig) -> TeacherConfig:
    match config:
        case LabelsConfig():
            return replace(config, k=10_000, dtype="fp32")
        case CropsConfig():
            return replace(config, codec=Rows(dtype="fp32"))
    return replace(config, codec=LowRank(rank=10_000, dtype="fp32"))


def step(trainer: Trainer, batch: Batch, world: World, live: Live) -> tuple[float, float, float]:
    """The loss of a step on stored targets, that of a live one, and the cosine of their whole gradients."""
    cached = trainer.train_step(batch)["loss"]
    student, _ = load_model(world.student, world.weights.get(world.student))
    mode, live_loss = live
    dense, context = student.dense_and_context(student.prepare(batch.images), mode)
    loss = live_loss(Seen(batch=batch, teachers=Teachers(world=world), dense=dense, q=context.get("q")))
    trained = {name: p.grad.flatten() for name, p in trainer.model.named_parameters() if p.grad is not None}
    own = dict(student.named_parameters())
    gradients = torch.autograd.grad(loss, [own[name] for name in trained])
    ours, theirs = (torch.cat([g.flatten() for g in each]).double() for each in (trained.values(), gradients))
    assert theirs.norm() > 0
    return cached, loss.item(), F.cosine_similarity(ours, theirs, dim=0).item()


def trainer_of(world: World, store: str, run: Path, **settings: Any) -> Trainer:
    defaults = {
        "weights": world.weights.get(world.student),
        "text_embeddings": world.texts.get(world.student),
        "theta": THETA,
        "spatial_side": SIDE,
        "batch_size": world.data.limit,
        "max_steps": 1,
        "workers": 0,
        "device": "cpu",
    }
    return Trainer(TrainConfig(store=store, run=str(run), student=world.student, **{**defaults, **settings}))


def assert_equal(trainer: Trainer, world: World, live: Live, allowed: tuple[float, float]) -> None:
    cached, asked, cosine = step(trainer, next(trainer.loader.batches(0)), world, live)
    assert abs(cached / asked - 1) <= allowed[0] and cosine >= allowed[1]


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    """Real classes of networks, a few layers of them."""
    with pytest.MonkeyPatch.context() as patch:
        for family, config in (("eva", EVA), ("vit", VIT)):
            small = Architecture(name=f"small-{family}", family=family, config=config)
            patch.setitem(registry.ARCHITECTURES, small.name, small)
        small = VFMArchitecture(name="small-vfm", timm="vit_tiny_patch16_224", patch=16)
        patch.setitem(vfm.VFMS, small.name, small)
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
            weights={model: "random:0" for model in (student, pvlm, f"refiner-{student}", "small-vfm")},
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
    trainer = trainer_of(world, stores(name, lossless), tmp_path, method=method)
    assert_equal(trainer, world, LIVE[method], LOSSLESS if lossless else DEFAULT)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["densevlm", "declip", "sc-clipself"])
def test_step__cached_equals_live_at_full_size(worlds, stores, tmp_path, method: str) -> None:
    trainer = trainer_of(worlds("b16"), stores("b16", False), tmp_path, method=method)
    assert_equal(trainer, worlds("b16"), LIVE[method], DEFAULT)


def test_step__every_method_has_a_live_reference() -> None:
    assert METHODS.keys() == LIVE.keys()


CONTEXT: Live = (PAPER, Seen.context)
OF_GRAM: dict[str, Live] = {"context": CONTEXT, "spatial:gram": ("value", Seen.spatial_of_gram)}


def assert_within_bound(world: World, store: str, run: Path) -> None:
    """The context loss of each photo alone changes by less than what is stored with the photo."""
    trainer = trainer_of(world, store, run, losses={"context": 1.0}, mode=PAPER, batch_size=1)
    column = trainer.targets["gram"]
    bounds = {
        record.key: decode_npz(record.parts[column.part]["npz"])["bound"]
        for shard in trainer.store.shard_names
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
