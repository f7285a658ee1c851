"""Photos, and the words of a build of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three readable photos and one that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    return folder


@pytest.fixture
def build(photos: Path, tmp_path: Path) -> list[object]:
    """A build of the photos by a random-weight teacher, as words."""
    return [
        "build-shards", "--dataset", "folder", "--data", photos, "--store", tmp_path / "store",
        "--canvas", 96, "--teacher", "scenes-l", "--weights", "scenes-l=random:0", "--categories", "scenes",
    ]  # fmt: skip
