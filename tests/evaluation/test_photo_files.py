"""Photos in files: those that cannot be read are left out with a word, and the others are upright."""

import logging

import pytest
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.evaluation.photo_files import PhotoFiles


@pytest.fixture
def files(tmp_path):
    """A broken photo, one that is turned, and two others."""
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no photo")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10), (250, 0, 0)).save(tmp_path / "b.jpg", exif=exif)
    for name in ("c.png", "d.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    return sorted(tmp_path.iterdir())


def test_photo_files__unreadable_ones_are_left_out_and_named(files, caplog):
    with caplog.at_level(logging.WARNING):
        photos = PhotoFiles(files, 2)
    assert [photos[i].key for i in range(len(photos))] == ["b.jpg", "c.png"]
    assert "1 photo is left out" in photos.left_out and "a.jpg" in photos.left_out
    assert photos.left_out in caplog.text


def test_photo_files__are_upright_rgb(files):
    photo = PhotoFiles(files, 1)[0].photo
    assert (photo.size, photo.mode) == ((10, 30), "RGB")


@pytest.mark.parametrize("count", [0, 1])
def test_photo_files__none_that_can_be_read(files, count):
    with pytest.raises(DenseCLIError) as error:
        PhotoFiles(files[:count], 3)
    assert "--data" in error.value.hint


def test_photo_files__several_that_cannot_be_read_are_counted(files):
    with pytest.raises(DenseCLIError, match=r"None of the 2 photos can be read\. The picture .*a\.jpg "):
        PhotoFiles([files[0], files[0]], 3)
