"""Pascal VOC 2012 and Pascal Context, with and without a background class.

voc: photos in ROOT/JPEGImages/, PNGs in ROOT/SegmentationClass/, splits in ROOT/ImageSets/Segmentation/.
context: VOC2010 with the 59 classes of Pascal Context as MMSegmentation converts them: PNGs in
ROOT/SegmentationClassContext/, splits in ROOT/ImageSets/SegmentationContext/.
"""

from collections.abc import Callable
from pathlib import Path

from densecli.core.errors import DenseCLIError
from densecli.evaluation.benchmarks import (
    BENCHMARKS,
    PERSON,
    Benchmark,
    Classes,
    Pair,
    require_pairs,
    value_table,
)

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOC_PROMPTS = {
    "boat": ("ship",),
    "diningtable": ("table",),
    "person": PERSON,
    "tvmonitor": ("television monitor", "tv monitor", "monitor", "television", "screen"),
}


@BENCHMARKS.register("context59", help="Pascal Context: 59 classes.", needs="--data DIR")
def context59() -> Benchmark:
    return _without_background(_context_classes(), _context_pairs)


@BENCHMARKS.register("context60", help="Pascal Context: 59 classes and background.", needs="--data DIR")
def context60() -> Benchmark:
    return _with_background(_context_classes().on_background("background"), _context_pairs)


@BENCHMARKS.register("voc20", help="Pascal VOC 2012: 20 classes.", needs="--data DIR")
def voc20() -> Benchmark:
    return _without_background(Classes.of(VOC, VOC_PROMPTS), _voc_pairs)


@BENCHMARKS.register("voc21", help="Pascal VOC 2012: 20 classes and background.", needs="--data DIR")
def voc21() -> Benchmark:
    return _with_background(Classes.of(VOC, VOC_PROMPTS).on_background(), _voc_pairs)


def _context_classes() -> Classes:
    return Classes.of_set("pascal_context_59", {"diningtable": ("table",)})


def _with_background(classes: Classes, pairs: Callable[[Path, str], list[Pair]]) -> Benchmark:
    return Benchmark(classes=classes, table=value_table(range(len(classes.names))), pairs=pairs)


def _without_background(classes: Classes, pairs: Callable[[Path, str], list[Pair]]) -> Benchmark:
    # In Pascal's PNGs 0 is background.
    return Benchmark(classes=classes, table=value_table(range(1, len(classes.names) + 1)), pairs=pairs)


def _voc_pairs(root: Path, split: str) -> list[Pair]:
    return _listed(root, "Segmentation", "SegmentationClass", split)


def _context_pairs(root: Path, split: str) -> list[Pair]:
    return _listed(root, "SegmentationContext", "SegmentationClassContext", split)


def _listed(root: Path, sets: str, pngs: str, split: str) -> list[Pair]:
    listing = root / "ImageSets" / sets / f"{split}.txt"
    try:
        names = sorted(listing.read_text().split())
    except OSError:
        raise DenseCLIError(
            f"There is no list of photos {listing}.",
            hint="--data is the folder that holds JPEGImages/ and ImageSets/.",
        ) from None
    pairs = [(root / "JPEGImages" / f"{name}.jpg", root / pngs / f"{name}.png") for name in names]
    return require_pairs(pairs, listing)
