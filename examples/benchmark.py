"""A segmentation data set: Oxford-IIIT Pets' trimaps as published, pet against background."""

from pathlib import Path

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.evaluation.benchmarks import BENCHMARKS, IGNORED, Benchmark, Classes


def pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """The photos that annotations/SPLIT.txt lists, each with its trimap."""
    listing = root / "annotations" / f"{split}.txt"
    if not listing.is_file():
        raise DenseCLIError(f"There is no list {listing}.", hint="Splits of the release: trainval and test.")
    names = sorted(line.split()[0] for line in listing.read_text().splitlines() if line.strip())
    return [
        (root / "images" / f"{name}.jpg", root / "annotations" / "trimaps" / f"{name}.png") for name in names
    ]


@BENCHMARKS.register("pets", help="Oxford-IIIT Pets: images/, annotations/trimaps/, annotations/SPLIT.txt.")
def pets() -> Benchmark:
    """In a trimap 1 is the pet, 2 the background, and 3 the border between them, which does not count."""
    table = np.full(256, IGNORED, np.int16)
    table[2], table[1] = 0, 1
    classes = Classes(
        names=("background", "pet"),
        prompts=(("wall", "floor", "grass", "sky"), ("cat", "dog")),
        background=0,
    )
    return Benchmark(classes=classes, table=table, pairs=pairs)
