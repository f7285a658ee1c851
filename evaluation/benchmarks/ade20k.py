"""ADE20K in the layout of ADEChallengeData2016.

Photos in ROOT/images/validation/, PNGs in ROOT/annotations/validation/ (SPLIT `val`; `training/` for
`train`).
"""

from pathlib import Path

from densecli.evaluation.benchmarks import (
    BENCHMARKS,
    Benchmark,
    Classes,
    Pair,
    first_folder,
    require_pairs,
    value_table,
)
from densecli.evaluation.panoptic import ADE_PHOTOS


@BENCHMARKS.register("ade150", help="ADE20K (ADEChallengeData2016): 150 classes.", needs="--data DIR")
def ade150() -> Benchmark:
    return Benchmark(classes=Classes.of_set("ade150"), table=value_table(range(1, 151)), pairs=_pairs)


def _pairs(root: Path, split: str) -> list[Pair]:
    folder = ADE_PHOTOS.get(split, split)
    pngs = first_folder(root / "annotations" / folder)
    photos = root / "images" / folder
    return require_pairs([(photos / f"{png.stem}.jpg", png) for png in sorted(pngs.glob("*.png"))], pngs)
