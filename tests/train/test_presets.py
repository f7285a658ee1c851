"""Every preset from one store: it trains, it freezes what it says, and it names the column that it lacks."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from registries import put
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.models.dense import DenseCLIP
from densecli.models.registry import MODELS, build, resolve
from densecli.shards.region_plans import region_plan
from densecli.shards.store import Store
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.heads import STUDENT
from densecli.train.methods import METHODS
from densecli.train.terms import term_and_kind


def config(store, run: Path, **settings) -> TrainConfig:
    defaults = {"max_steps": 2, "spatial_side": 3}
    return TrainConfig(**run_settings(store.root, run, **{**defaults, **settings}))


@pytest.mark.parametrize("method", METHODS)
def test_preset__every_trained_parameter_moves_and_no_other(full_store, tmp_path, method: str) -> None:
    trainer = make_trainer(config(full_store.store, tmp_path, method=method))
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    train_step = trainer.train_step
    without: set[str] = set()

    def watching(batches):
        row = train_step(batches)
        without.update(name for name, p in trainer.model.named_parameters() if p.grad is None)
        return row

    trainer.train_step = watching  # type: ignore[method-assign]
    trainer.fit()
    prefix = "" if trainer.model is trainer.recipe.student else STUDENT
    frozen = trainer.recipe.student.frozen_names(trainer.recipe.mode)
    assert without == {f"{prefix}{name}" for name in frozen}
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - without
    for row in rows(tmp_path):
        assert row["loss"] == pytest.approx(
            sum(weight * row[loss] for loss, weight in METHODS[method].losses.items()), rel=1e-5
        )


def trained(model: DenseCLIP, method: str) -> set[str]:
    mode = METHODS[method].settings.get("mode", "value")
    mode = mode if model.has_mode(mode) else "value"
    return {name for name, _ in model.named_parameters()} - model.frozen_names(mode)


@pytest.fixture(scope="module")
def without_values():
    @cache
    def make(name: str) -> DenseCLIP:
        with torch.device("meta"):
            return build(resolve(name))

    return make


LAST_OF_EVA = "clip.visual.trunk.blocks.11"
BIASED = ("weight", "bias")


@pytest.mark.parametrize("method", METHODS)
def test_preset__freezes_by_name__eva(without_values, method: str) -> None:
    names = trained(without_values("eva02-b16"), method)
    blocks = {name.split(".")[4] for name in names}
    assert all(name.startswith("clip.visual.trunk.blocks.") for name in names)
    assert blocks == {str(i) for i in range(12)}
    last = {name.removeprefix(f"{LAST_OF_EVA}.") for name in names if name.startswith(LAST_OF_EVA)}
    attention = {f"{part}.{x}" for part in ("norm1", "attn.v_proj", "attn.norm", "attn.proj") for x in BIASED}
    if method.startswith("declip"):
        assert last == attention | {"attn.q_proj.weight", "attn.q_proj.bias"}
    else:
        ffn = ("norm2", "mlp.norm", "mlp.fc1_g", "mlp.fc1_x", "mlp.fc2")
        assert last == attention | {f"{part}.{x}" for part in ffn for x in BIASED}


@pytest.mark.parametrize("method", METHODS)
def test_preset__freezes_by_name__vit(without_values, method: str) -> None:
    names = trained(without_values("vit-b16"), method)
    assert all(name.startswith("clip.visual.transformer.resblocks.") for name in names)
    last = {name.split(".", 5)[5] for name in names if ".resblocks.11." in name}
    attention = {
        "ln_1.weight",
        "ln_1.bias",
        "attn.in_proj_weight",
        "attn.in_proj_bias",
        "attn.out_proj.weight",
        "attn.out_proj.bias",
    }
    ffn = {f"{part}.{x}" for part in ("ln_2", "mlp.c_fc", "mlp.c_proj") for x in BIASED}
    assert last == (attention if method.startswith("declip") else attention | ffn)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("student", "begins"),
    [
        ("rn50", ("clip.visual.layer",)),
        ("convnext-b", ("clip.visual.trunk.stages",)),
    ],
)
def test_preset__freezes_by_name__convolutional(without_values, student, begins, method) -> None:
    names = trained(without_values(student), method)
    assert all(name.startswith(begins) for name in names)
    assert all(any(name.startswith(begin) for name in names) for begin in begins)


def test_losses__any_mix_in_place_of_the_methods(full_store, tmp_path) -> None:
    losses = {"region_kl": 1.0, "context:self": 0.5, "spatial:gram": 0.25, "spatial": 0.125}
    train(config(full_store.store, tmp_path, method="declip", losses=losses, max_steps=1))
    [row] = rows(tmp_path)
    assert row["loss"] == pytest.approx(sum(w * row[loss] for loss, w in losses.items()), rel=1e-5)
    resolved = json.loads((tmp_path / "config.json").read_text())
    assert resolved["losses"] == losses and resolved["mode"] == "qq+scale"
    assert set(resolved["columns"]) == {"images", "regions", "labels", "self", "gram"}


@pytest.mark.parametrize(
    ("method", "kind", "teacher"),
    [
        ("clipself", "crops", "crops-scenes-s"),
        ("r-sc-v", "refined", "refiner-scenes-s"),
        ("sc-regiontext", "self", "self-scenes-s"),
    ],
)
def test_train__names_the_missing_column_of_the_students_own(tiny_store, tmp_path, method, kind, teacher):
    with pytest.raises(DenseCLIError, match=f"no {kind} column") as caught:
        make_trainer(config(tiny_store.store, tmp_path, method=method))
    assert f"densecli build-shards --teacher {teacher} --dataset noise" in caught.value.commands[-1]
    assert "--regions grid-densevlm" in caught.value.commands[-1]


def test_train__declip_without_gram(tiny_store, tmp_path) -> None:
    losses = METHODS["declip"].losses
    assert [term_and_kind(loss)[1] for loss in losses] == ["crops", "gram"]
    with pytest.raises(DenseCLIError) as caught:
        make_trainer(config(tiny_store.store, tmp_path, losses={"context": 0.25}))
    assert str(caught.value) == f"The store at {tiny_store.store.root} has no gram column."
    assert "densecli build-shards --teacher dinov2-vitb14" in caught.value.commands[0]
    assert "--student-patch 12" in caught.value.commands[0]


def test_train__declip_on_the_generated_world_has_its_own_vfm(tmp_path) -> None:
    identity = {"name": "scenes", "split": "train", "n": 4, "seed": 0}
    store = Store.create(str(tmp_path / "store"), identity, 96, [4])
    with pytest.raises(DenseCLIError) as caught:
        make_trainer(config(store, tmp_path, losses={"context": 0.25}))
    assert "densecli build-shards --teacher scenes-vfm" in caught.value.commands[0]


def test_train__takes_the_students_own_of_several(full_store, tmp_path) -> None:
    store, own = full_store.store, full_store.store.find("targets", "crops-scenes-s")
    spec = {name: own.spec[name] for name in ("codec", "regions", "target")}
    other = store.column("targets", "crops-scenes-l", spec)
    trainer = make_trainer(config(store, tmp_path, method="clipself"))
    store.add_column("targets", "crops-scenes-l", spec)
    try:
        assert (
            make_trainer(config(store, tmp_path, method="clipself")).recipe.targets
            == trainer.recipe.targets
            == {"crops": own}
        )
        with pytest.raises(DenseCLIError, match="not finished"):
            make_trainer(config(store, tmp_path, method="clipself", teachers=("crops-scenes-l",)))
    finally:
        Path(other.url, "column.json").unlink()


def test_train__maps_go_with_any_regions(full_store, tmp_path) -> None:
    store = full_store.store
    settings = {"losses": {"spatial:self": 1.0, "context": 0.1}, "max_steps": 1}
    train(config(store, tmp_path / "only", **settings))
    other = store.add_column("regions", "grid-clipself", region_plan("grid-clipself").spec)
    try:
        with pytest.raises(DenseCLIError, match="2 columns of regions") as caught:
            make_trainer(config(store, tmp_path / "which", **settings))
        assert "grid-densevlm" in caught.value.hint
        named = make_trainer(config(store, tmp_path / "named", regions="grid-densevlm", **settings))
        assert named.loader.regions == full_store.regions
    finally:
        Path(other.url, "column.json").unlink()


def test_train__columns_of_different_regions(full_store, tmp_path) -> None:
    store, crops = full_store.store, full_store.store.find("targets", "crops-scenes-s")
    plan = store.add_column("regions", "grid-clipself", region_plan("grid-clipself").spec)
    spec = {"codec": crops.spec["codec"], "target": crops.spec["target"], "regions": plan.key}
    foreign = store.add_column("targets", "crops-of-others", spec)
    try:
        with pytest.raises(DenseCLIError, match="crops-of-others, tiny are about different region plans"):
            make_trainer(
                config(
                    store,
                    tmp_path,
                    losses={"region_cosine": 1.0, "region_kl": 1.0},
                    teachers=("crops-of-others",),
                )
            )
    finally:
        Path(foreign.url, "column.json").unlink()
        Path(plan.url, "column.json").unlink()


def test_train__the_weights_of_a_large_students_preset(full_store, tmp_path, monkeypatch) -> None:
    put(monkeypatch, MODELS, "scenes-s", replace(resolve("scenes-s"), size="large"))
    trainer = make_trainer(config(full_store.store, tmp_path, method="sc-clipself"))
    assert trainer.recipe.loss_weights == {"region_cosine": 1.0, "spatial:self": 0.4}
    losses = {"spatial:self": 0.2}
    mine = make_trainer(config(full_store.store, tmp_path, method="sc-clipself", losses=losses))
    assert mine.recipe.loss_weights == losses


def test_notes__where_the_store_and_the_steps_are_not_the_papers(full_store, tmp_path) -> None:
    notes = make_trainer(config(full_store.store, tmp_path, method="clipself")).notes
    assert [note.partition(" ")[0] for note in notes] == ["clipself", "clipself", "clipself", "The"]
    canvas, regions, batch, warmup = notes
    assert "canvas of 1024 px" in canvas and "96 px" in canvas
    assert "grid-clipself" in regions and "grid-densevlm" in regions
    assert "with 16 photos in a step" in batch and "this training with 3;" in batch
    assert warmup.startswith("The learning rate rises at once instead of over 1000 steps")
    longer = make_trainer(config(full_store.store, tmp_path, method="clipself", max_steps=30)).notes[-1]
    assert longer.startswith("The learning rate rises over 3 steps instead of over 1000 steps")
    one = make_trainer(config(full_store.store, tmp_path, method="clipself", max_steps=10)).notes[-1]
    assert one.startswith("The learning rate rises over 1 step instead of")
    losses = {"region_cosine": 1.0}
    own = make_trainer(config(full_store.store, tmp_path, losses=losses, warmup_steps=1)).notes
    assert own == []
