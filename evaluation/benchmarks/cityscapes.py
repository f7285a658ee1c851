"""Cityscapes.

Photos in ROOT/leftImg8bit/SPLIT/CITY/, PNGs *_gtFine_labelIds.png in ROOT/gtFine/SPLIT/CITY/.
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

# The labelIds of the 19 classes, in the order of their trainIds.
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_END = "_gtFine_labelIds.png"


@BENCHMARKS.register("cityscapes", help="Cityscapes: 19 classes.", needs="--data DIR")
def cityscapes() -> Benchmark:
    return Benchmark(classes=Classes.of_set("cityscapes_19"), table=value_table(_IDS), pairs=_pairs)


def _pairs(root: Path, split: str) -> list[Pair]:
    pngs = first_folder(root / "gtFine" / split)
    photos = root / "leftImg8bit" / split
    pairs = [
        (photos / png.parent.name / f"{png.name.removesuffix(_END)}_leftImg8bit.png", png)
        for png in sorted(pngs.glob(f"*/*{_END}"))
    ]
    return require_pairs(pairs, pngs)
