"""A tiny build without Ray: the generated world, retrieved by a CLIP with random weights."""

from collections.abc import Callable
from pathlib import Path

import pytest

from densecli.pipeline.config import BuildConfig
from densecli.pipeline.teachers import Photo
from densecli.shards.geometry import Canvas
from densecli.shards.joined import Record, decode_image
from densecli.shards.npz import decode_npz
from densecli.shards.regions import Regions


@pytest.fixture
def tiny(tmp_path: Path) -> BuildConfig:
    return BuildConfig(
        dataset="scenes",
        split="val",
        limit=6,
        store=str(tmp_path / "store"),
        shard_size=4,
        teachers=("scenes-s",),
        weights={"scenes-s": "random:0"},
        device="cpu",
    )


@pytest.fixture
def photo_of() -> Callable[[Record, int], Photo]:
    """A stored sample as the teachers see it, on a canvas of that size."""

    def photo(record: Record, canvas: int) -> Photo:
        image = decode_image(record.parts["images"]["jpg"])
        regions = Regions.of(decode_npz(record.parts["regions"]["npz"]))
        return Photo(key=record.key, image=image, canvas=Canvas(canvas), regions=regions)

    return photo


@pytest.fixture
def files_of() -> Callable[[Path], dict[str, tuple]]:
    """Every file below a folder with what a rewrite would change."""

    def files(root: Path) -> dict[str, tuple]:
        found = sorted(path for path in Path(root).rglob("*") if path.is_file())
        return {
            str(p.relative_to(root)): (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in found
        }

    return files
