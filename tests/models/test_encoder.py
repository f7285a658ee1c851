"""The encoder of `densecli.load`: whatever a photo comes as, one answer, and that of the model itself."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import densecli
from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.models.encoder import BATCH, Encoder
from densecli.models.student import load_student
from densecli.models.text import text_embeddings

BOXES = np.array([[0, 0, 60, 40], [10, 5, 30, 20]], float)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(load_model("scenes-s")[0], canvas=96)


def photo(seed: int = 0, width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def test_dense__is_the_models_own_map_of_the_canvas(encoder: Encoder) -> None:
    image = photo()
    canvas = np.zeros((96, 96, 3), np.uint8)
    canvas[:64] = np.asarray(image.resize((96, 64), Image.Resampling.BICUBIC))
    model = encoder.model
    with torch.no_grad():
        expected = model.dense(model.prepare(torch.from_numpy(canvas).permute(2, 0, 1)[None]), "value")
    dense = encoder.dense(image)
    assert dense.shape == (64, 8, 8) and not dense.requires_grad
    assert torch.equal(dense, expected[0])


def test_dense__pixels_of_every_kind(encoder: Encoder, tmp_path: Path) -> None:
    image = photo()
    image.save(tmp_path / "photo.png")
    pixels = np.asarray(image)
    expected = encoder.dense(image)
    for same in (tmp_path / "photo.png", str(tmp_path / "photo.png"), pixels, image.convert("RGBA")):
        assert torch.equal(encoder.dense(same), expected)
    assert torch.equal(encoder.dense(torch.from_numpy(pixels.copy()).permute(2, 0, 1)), expected)
    batch = encoder.dense(np.stack([pixels, pixels[::-1]]))
    torch.testing.assert_close(batch[0], expected)
    torch.testing.assert_close(
        encoder.dense(torch.from_numpy(np.stack([pixels]).transpose(0, 3, 1, 2)))[0], expected
    )
    grey = image.convert("L")
    assert torch.equal(encoder.dense(np.asarray(grey)), encoder.dense(grey))


def test_dense__a_file_is_turned_as_its_exif_says(encoder: Encoder, tmp_path: Path) -> None:
    image, exif = photo(), Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    assert torch.equal(encoder.dense(tmp_path / "lying.png"), encoder.dense(image))
    upright = encoder.regions(tmp_path / "lying.png", BOXES)
    assert torch.equal(upright, encoder.regions(image, BOXES))
    with Image.open(tmp_path / "lying.png") as stored:
        assert torch.equal(encoder.dense(stored), encoder.dense(np.asarray(stored)))


@pytest.mark.parametrize("pixels", [np.zeros((8, 8, 3)), np.zeros((3, 8, 8), np.uint8), torch.zeros(3, 8, 8)])
def test_dense__other_pixels_are_refused(encoder: Encoder, pixels) -> None:
    with pytest.raises(DenseCLIError, match="pixels cannot be read"):
        encoder.dense(pixels)


def test_many_photos__each_as_it_is_alone(encoder: Encoder) -> None:
    photos = [photo(seed, 60 + seed, 40) for seed in range(BATCH + 2)]
    assert encoder.dense(photos).shape == (BATCH + 2, 64, 8, 8)
    boxes = [BOXES[: 1 + seed % 2] for seed in range(len(photos))]
    masks = [np.ones((2, p.height, p.width), bool) for p in photos]
    for many, one, given in (
        (encoder.regions(photos, boxes), encoder.regions, boxes),
        (encoder.masks(photos, masks), encoder.masks, masks),
    ):
        for got, image, regions in zip(many, photos, given, strict=True):
            torch.testing.assert_close(got, one(image, regions), atol=1e-5, rtol=0)


def test_many_photos__more_than_there_may_be_open_files(encoder: Encoder, tmp_path: Path) -> None:
    photo().save(tmp_path / "photo.png")
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [tmp_path / "photo.png"] * (5 * BATCH)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 2 * BATCH, before[1]))
    try:
        maps, pooled = encoder.dense(files), encoder.regions(files, [BOXES] * len(files))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(maps) == len(pooled) == len(files)


def test_regions_and_masks__of_whole_tokens_agree(encoder: Encoder) -> None:
    image, box = photo(width=96, height=96), [[24, 36, 36, 48]]
    mask = np.zeros((1, 96, 96), bool)
    mask[0, 36:48, 24:36] = True
    expected = encoder.dense(image)[:, 3, 2]
    torch.testing.assert_close(encoder.masks(image, mask)[0], expected)
    torch.testing.assert_close(encoder.regions(image, torch.tensor(box)).norm(dim=1), torch.ones(1))
    assert encoder.regions(image, np.zeros((0, 4))).shape == (0, 64)
    assert encoder.masks(image, ~mask & mask).abs().sum() == 0


def test_masks__of_another_size_are_refused(encoder: Encoder) -> None:
    with pytest.raises(DenseCLIError, match=r"Masks are \(1, 60, 40\) for a photo of 40 x 60"):
        encoder.masks(photo(), np.ones((1, 60, 40), bool))
    with pytest.raises(DenseCLIError, match="1 arrays of regions for 2 photos"):
        encoder.regions([photo(), photo()], [BOXES])


def test_text__is_the_text_towers(encoder: Encoder) -> None:
    expected = text_embeddings(encoder.model, ["boat", "sky"])
    assert torch.equal(encoder.text(["boat", "sky"]), expected) and not expected.requires_grad
    assert not torch.equal(encoder.text(["boat", "sky"], templates=["the {}"]), expected)


def test_text__a_vfm_has_none() -> None:
    vfm = Encoder(load_student("scenes-vfm")[0], canvas=96)
    assert vfm.regions(photo(), BOXES).shape == (2, 80)
    with pytest.raises(DenseCLIError, match="scenes-vfm has no text tower"):
        vfm.text(["boat"])


def test_load__as_the_card_says(tmp_path: Path) -> None:
    model, _ = load_model("scenes-s")
    file = tmp_path / "x.safetensors"
    save_file(model.clip.state_dict(), file)
    with pytest.raises(DenseCLIError, match="no model card") as caught:
        densecli.load(file)
    assert "student=" in caught.value.hint
    assert densecli.load(file, student="scenes-s", device="cpu").canvas.size == 512
    (tmp_path / "x.card.json").write_text(
        json.dumps({"student": "scenes-s", "image_size": 96, "mode": "vanilla"})
    )
    loaded = densecli.load(file, device="cpu")
    with torch.no_grad():
        expected = Encoder(model, canvas=96, mode="vanilla").dense(photo())
    assert torch.equal(loaded.dense(photo()), expected) and loaded.card["student"] == "scenes-s"
    other = densecli.load(str(file), mode="value", canvas=48, device="cpu")
    assert other.mode == "value" and other.dense(photo()).shape == (64, 4, 4)


def test_load__a_folder_that_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(DenseCLIError, match=r"no .*card\.json"):
        densecli.load(tmp_path)
    (tmp_path / "export").mkdir()
    # As the run of a Refiner leaves it.
    (tmp_path / "export" / "card.json").write_text(json.dumps({"student": "scenes-s"}))
    with pytest.raises(DenseCLIError, match=r"no exported student .*student\.safetensors"):
        densecli.load(tmp_path)


def test_import__models_alone_is_light() -> None:
    code = "import densecli, sys; assert densecli.load; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
