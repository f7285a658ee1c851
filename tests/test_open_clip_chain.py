"""A SigLIP by its name in open_clip, from the build to the trained student."""

import json
from collections.abc import Iterator

import numpy as np
import open_clip
import pytest
import torch
from building import build_here
from registries import put
from safetensors.torch import load_file
from small_siglip import SIGLIP
from training import rows, run_settings

import densecli
from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.models.vfm_architecture import VFMArchitecture
from densecli.models.vfms import VFMS
from densecli.pipeline.config import BuildConfig
from densecli.scenes.vocabulary import NAMES
from densecli.train.distillation import TrainConfig, train
from densecli.train.refiner import RefinerConfig, make_refiner_trainer


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a small SigLIP that open_clip knows."""
    file = tmp_path_factory.mktemp("configs") / "ViT-nano-SigLIP.json"
    file.write_text(json.dumps(SIGLIP))
    known = open_clip.factory._MODEL_CONFIGS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip.factory, "_MODEL_CONFIGS", known.copy())
        open_clip.add_model_config(file)
        yield f"open_clip/{file.stem}"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Embeddings of the categories: SigLIP's tokenizer is not here."""
    file = tmp_path_factory.mktemp("texts") / "texts.npy"
    embeddings = np.random.default_rng(0).normal(size=(len(NAMES), SIGLIP["embed_dim"])).astype(np.float32)
    np.save(file, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    return str(file)


@pytest.fixture(scope="module")
def store(siglip: str, texts: str, tmp_path_factory: pytest.TempPathFactory) -> densecli.Store:
    """Labels, crops and tokens of a few photos by that SigLIP."""
    config = BuildConfig(
        dataset="scenes",
        split="val",
        limit=4,
        store=str(tmp_path_factory.mktemp("chain") / "store"),
        teachers=(siglip, f"crops-{siglip}", f"self-{siglip}"),
        weights={siglip: "random:0"},
        text_embeddings=texts,
        views=1,
        rank=16,
        device="cpu",
    )
    return build_here(config)[0].store


def test_build__columns_of_every_kind_by_a_siglip(store, siglip) -> None:
    kinds = {column.name: column.target_kind for column in store.columns("targets")}
    assert kinds == {siglip: "labels", f"crops-{siglip}": "crops", f"self-{siglip}": "self"}
    assert {column.spec["architecture"] for column in store.columns("targets")} == {siglip}


def test_train__a_siglip_learns_from_all_of_them_and_is_loaded_again(store, siglip, texts, tmp_path) -> None:
    losses = {"region_kl": 1.0, "region_cosine": 1.0, "spatial:self": 0.5}
    # Other weights than the teacher's, from which there is something to learn.
    settings = {"student": siglip, "weights": "random:1", "text_embeddings": texts, "theta": 0.0}
    config = run_settings(store.root, tmp_path, losses=losses, max_steps=2, batch_size=2, **settings)
    result = train(TrainConfig(**config))
    assert all(row[name] > 0 for row in rows(tmp_path) for name in losses)

    before = load_model(siglip, "random:1")[0].clip.state_dict()
    after = load_file(result["export"])
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved and all(name.startswith("visual.trunk.blocks.") for name in moved)

    encoder = densecli.load(tmp_path, device="cpu")
    photo = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    dense = encoder.dense(photo)
    assert dense.shape[0] == SIGLIP["embed_dim"] and np.isfinite(np.asarray(dense)).all()


def test_train_refiner__says_that_a_siglip_has_no_cls(store, siglip, tmp_path) -> None:
    config = RefinerConfig(**run_settings(store.root, tmp_path, student=siglip))
    with pytest.raises(DenseCLIError, match=r"has no transformer blocks with a \[CLS\] token") as caught:
        make_refiner_trainer(config)
    assert "eva02-b16" in caught.value.hint


def test_train_refiner__says_that_a_vfm_has_no_cls(store, tmp_path, monkeypatch) -> None:
    options = {"class_token": False, "global_pool": "avg"}
    small = VFMArchitecture(name="small-vfm", timm="vit_tiny_patch16_224", patch=16, options=options)
    put(monkeypatch, VFMS, "small-vfm", small)
    config = RefinerConfig(**run_settings(store.root, tmp_path, student="small-vfm"))
    with pytest.raises(DenseCLIError, match=r"small-vfm has no transformer blocks with a \[CLS\] token"):
        make_refiner_trainer(config)
