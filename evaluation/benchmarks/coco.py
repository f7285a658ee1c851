"""COCO-Stuff 164k as released, and COCO-Object: its things, and everything else as background.

Photos in ROOT/SPLIT/ or ROOT/images/SPLIT/, PNGs in ROOT/stuffthingmaps/SPLIT/ or ROOT/annotations/SPLIT/.
The values of the PNGs are COCO's ids less 1.
"""

from pathlib import Path

from densecli.evaluation.benchmarks import (
    BENCHMARKS,
    PERSON,
    Benchmark,
    Classes,
    Pair,
    first_folder,
    require_pairs,
    value_table,
)
from densecli.models.categories import load_categories

THINGS = 80
# Ids, counted from 1, that COCO never annotated: the 182 ids of COCO-Stuff are 171 classes.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)


@BENCHMARKS.register("coco-stuff", help="COCO-Stuff 164k: 171 classes.", needs="--data DIR")
def coco_stuff() -> Benchmark:
    return Benchmark(
        classes=Classes.of_set("171"),
        table=value_table([i for i in range(182) if i + 1 not in _UNUSED]),
        pairs=_pairs,
    )


@BENCHMARKS.register(
    "coco-object", help="COCO-Object: the 80 things of COCO-Stuff and background.", needs="--data DIR"
)
def coco_object() -> Benchmark:
    things = load_categories("171").names[:THINGS]
    ids = [i for i in range(90) if i + 1 not in _UNUSED]
    classes = Classes.of(things, {"person": (*PERSON, "body")}).on_background()
    # Pixels that nobody labelled are background too (GroupViT's conversion).
    return Benchmark(classes=classes, table=value_table(ids, first=1, others=0), pairs=_pairs)


def _pairs(root: Path, split: str) -> list[Pair]:
    pngs = first_folder(root / "stuffthingmaps" / split, root / "annotations" / split)
    photos = first_folder(root / split, root / "images" / split)
    # MMSegmentation's converter leaves PNGs with other values beside the released ones.
    released = [png for png in sorted(pngs.glob("*.png")) if not png.stem.endswith("TrainIds")]
    return require_pairs([(photos / f"{png.stem}.jpg", png) for png in released], pngs)
