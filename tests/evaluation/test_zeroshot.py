"""Image-level zero-shot: by a model that reads the class from the photo's colour."""

import os
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.zeroshot import DominantThings, FolderImages, centre_crop, zero_shot
from densecli.models.categories import Categories

NAMES = ("ant", "bee_hive", "cat", "dog", "elk", "fox", "gnu")
STEP = 30
ALONE = Distributed(device=torch.device("cpu"))


class Reader(nn.Module):
    """The class that the red channel of the photo's middle codes, as one-hot; neighbours score less."""

    arch = SimpleNamespace(native_side=8)

    def normalize(self, images):
        return images.float()

    def encode_image(self, images):
        code = images[:, 0, 4, 4] / STEP
        return -(code[:, None] - torch.arange(len(NAMES))).abs() + len(NAMES)


def painted(code, size=(12, 9)):
    return Image.new("RGB", size, (code * STEP, 0, 0))


@pytest.fixture
def folders(tmp_path):
    """Two photos a class, of which one is painted as the class after next."""
    for c, name in enumerate(NAMES):
        (tmp_path / "val" / name).mkdir(parents=True)
        painted(c).save(tmp_path / "val" / name / "0.png")
        painted((c + 2) % len(NAMES), (9, 14)).save(tmp_path / "val" / name / "1.png")
        (tmp_path / "val" / name / "notes.txt").write_text("no photo")
    return tmp_path


TEXT = nn.functional.normalize(torch.stack([-(torch.arange(7) - c).abs() + 7.0 for c in range(7)]), dim=1)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_zero_shot__accuracy_by_hand(folders, batch_size):
    result = zero_shot(Reader(), FolderImages(folders, "val"), TEXT, batch_size=batch_size, processes=ALONE)
    # Off by two is among the first five; the last two classes' wrong photos are off by five.
    assert (result.photos, result.classes) == (14, 7)
    assert result.top1 == pytest.approx(50)
    assert result.top5 == pytest.approx(100 * 12 / 14)


def test_folder__names_and_splits(folders):
    images = FolderImages(folders, "val")
    assert images.names[1] == "bee hive" and len(images) == 14
    assert len(FolderImages(folders / "val", "none")) == 14


def test_folder__a_limit_takes_photos_of_all_classes(folders):
    images = FolderImages(folders, "val", limit=7)
    assert len({images[i][1] for i in range(len(images))}) == 7


def test_folder__wordnet_ids_get_imagenet_s_names(tmp_path):
    for n in range(1000):
        (tmp_path / f"n{n:08d}").mkdir()
    painted(0).save(tmp_path / "n00000000" / "0.png")
    assert FolderImages(tmp_path, "val").names == tuple(open_clip.IMAGENET_CLASSNAMES)


def test_folder__a_class_whose_name_is_not_utf8_is_named_in_text(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"val", b"caf\xe9")
    os.makedirs(folder)
    Image.new("RGB", (8, 8)).save(os.path.join(os.fsdecode(folder), "1.png"))
    assert FolderImages(tmp_path, "val").names == ("caf\\xe9",)


def test_folder__without_photos_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(DenseCLIError, match="no photos in class folders"):
        FolderImages(tmp_path, "val")


def test_dominant__the_largest_thing_is_the_class(write_panoptic):
    names, thing = ("cat", "sea", "boat"), np.array([True, False, True])
    rows = np.arange(12)[:, None].repeat(10, 1)
    photo = np.zeros((12, 10, 3), np.uint8)
    # Two cats of 2 rows each outweigh a boat of 3; the sea is larger, but no thing.
    mixed = [(0, rows < 2, False), (2, (rows >= 2) & (rows < 5), False), (0, rows > 9, False)]
    mixed += [(1, (rows >= 5) & (rows < 10), False)]
    only_sea = [(1, rows >= 0, False)]
    root = write_panoptic("coco", names, thing, [(photo, mixed), (photo, only_sea)])
    known = Categories(name="three", names=names, thing=thing)
    images = DominantThings(PanopticDataset(root, "val", known))
    assert images.names == ("cat", "boat")
    assert [images[i][1] for i in range(2)] == [0, -1]
    result = zero_shot(Reader(), images, TEXT[:2], batch_size=8, processes=ALONE)
    assert (result.photos, result.top1) == (1, 100.0)


def test_centre_crop__takes_the_middle():
    photo = np.zeros((10, 30, 3), np.uint8)
    photo[:, 10:20] = 200
    assert (centre_crop(Image.fromarray(photo), 10) == 200).all()
    assert centre_crop(Image.new("RGB", (33, 100)), 8).shape == (8, 8, 3)
