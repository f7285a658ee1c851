"""The column `cls` and the term `image_cosine`: the student's image embedding stays that of its CLIP."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import build_missing
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.pipeline.build_request import prepare
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.verify import VerifyConfig, verify
from densecli.shards.store import Store
from densecli.train.distillation import TrainConfig, make_trainer

SIDE = 96


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three scenes with the shipped student's image embeddings and its crops."""
    config = BuildConfig(
        dataset="scenes",
        split="val",
        limit=3,
        store=str(tmp_path_factory.mktemp("image") / "store"),
        teachers=("cls-scenes-s", "crops-scenes-s"),
        views=1,
        codec="fp32",
        device="cpu",
    )
    request, source = prepare(config)
    build_missing(request, source, config.shard_size)
    return request.store.root


def embedding_of(image: np.ndarray) -> torch.Tensor:
    """From the definition: the photo, its longest side at the model's own, centred on black."""
    photo = Image.fromarray(image)
    scale = SIDE / max(photo.size)
    small = photo.resize([round(side * scale) for side in photo.size], Image.Resampling.BICUBIC)
    square = Image.new("RGB", (SIDE, SIDE))
    square.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    model, _ = load_model("scenes-s")
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return F.normalize(model.encode_image(model.normalize(pixels)), dim=1)[0]


def trainer_of(store: str, run: Path, **settings):
    given = {"student": "scenes-s", "losses": {"region_cosine": 1.0, "image_cosine": 0.5}}
    fixed = {"batch_size": 3, "max_steps": 2, "workers": 0, "device": "cpu", "teachers": ("crops-scenes-s",)}
    return make_trainer(TrainConfig(store=store, run=str(run), **{**given, **fixed, **settings}))


def test_column__is_the_embedding_of_the_whole_photo(store):
    opened = Store.open(store)
    column = opened.find("targets", "cls-scenes-s")
    assert column.target_kind == "cls" and column.regions_key is None
    for record in opened.samples(column):
        [row] = column.codec.decode(record.arrays(column.part))
        torch.testing.assert_close(torch.from_numpy(row), embedding_of(record.image()), atol=1e-5, rtol=0)
    found = verify(VerifyConfig(store=store, samples=3, device="cpu"))
    assert found["verified"] is True


@pytest.mark.parametrize("mode", ["value", "qq+scale"])
def test_step__loss_and_gradients_are_those_of_the_definition(store, tmp_path, mode):
    trainer = trainer_of(store, tmp_path / "run", mode=mode, teachers=(), losses={"image_cosine": 1.0})
    batch = next(trainer.loader.batches(0))
    records = {record.key: record for record in Store.open(store).samples("cls-scenes-s")}
    teacher = torch.stack([embedding_of(records[key].image()) for key in batch.keys])
    student, _ = load_model("scenes-s")
    image = F.normalize(student.encode_image(student.prepare(batch.images)), dim=1)
    loss = (1 - (image * teacher).sum(dim=1)).mean()

    assert trainer.train_step([batch])["image_cosine"] == pytest.approx(loss.item(), abs=1e-5)
    own = dict(student.named_parameters())
    trained = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert trained
    expected = torch.autograd.grad(loss, [own[name] for name in trained])
    for name, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(trained[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_step__beside_a_term_of_regions_and_its_head(store, tmp_path):
    trainer = trainer_of(store, tmp_path / "run", loss_options={"region_cosine.projection": "true"})
    batch = next(trainer.loader.batches(0))
    found = trainer.train_step([batch])
    assert found["loss"] == pytest.approx(found["region_cosine"] + 0.5 * found["image_cosine"])


def test_train__a_vfm_has_no_image_embedding(store, tmp_path):
    with pytest.raises(DenseCLIError, match="has no image embedding"):
        trainer_of(store, tmp_path / "run", student="scenes-vfm", teachers=("cls-scenes-s",),
                   losses={"image_cosine": 1.0})  # fmt: skip


def test_term__says_that_the_embeddings_are_of_another_model(store, tmp_path):
    assert not any("another model" in note for note in trainer_of(store, tmp_path / "own").notes)
    notes = trainer_of(store, tmp_path / "other", student="scenes-s-clipself").notes
    assert any("cls-scenes-s has the image embeddings of another model" in note for note in notes)


def test_term__embeddings_of_another_width_are_refused_before_the_first_step(store, tmp_path):
    given = {"student": "scenes-l", "losses": {"image_cosine": 1.0}, "teachers": ("cls-scenes-s",)}
    said = "cls-scenes-s have 64-dimensional embeddings, but the student's have 96 dimensions"
    with pytest.raises(DenseCLIError, match=said):
        trainer_of(store, tmp_path / "run", **given)
