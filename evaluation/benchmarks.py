"""The semantic segmentation datasets that papers report: classes, prompts, what a PNG's values mean.

Prompts and background are those of SCLIP (Wang et al., ECCV 2024), which ClearCLIP and ProxyCLIP took over:
a class may have several names, the best of which counts; VOC21's and COCO-Object's background is a list of
words for what lies behind things, Context60's the word itself; and where no class is likely enough, it is
background as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from densecli.models.categories import load_categories

IGNORED = -1
BACKGROUND = (
    *("sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sands", "desk", "bed"),
    *("building", "cloud", "lamp", "door", "window", "wardrobe", "ceiling", "shelf", "curtain", "stair"),
    *("floor", "hill", "rail", "fence"),
)
_CLOTHES = ("shirt", "jeans", "dress", "sweater", "skirt", "jacket")
PERSON = ("person", *(f"person in {piece}" for piece in _CLOTHES))
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
# Cityscapes' labelIds of its 19 classes, in the order of their trainIds.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# Ids, from 1, that COCO planned for things and never annotated: COCO-Stuff's 182 ids are 171 classes.
COCO_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
COCO_THINGS = 80


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Classes by name, each with the prompts that stand for it, and which of them is background, if any."""

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    background: int | None = None

    @classmethod
    def of(cls, names: Sequence[str], prompts: Mapping[str, tuple[str, ...]] | None = None) -> "Classes":
        """Every class is its own prompt where `prompts` has no others for it."""
        others = prompts or {}
        return cls(names=tuple(names), prompts=tuple(others.get(name, (name,)) for name in names))

    def on_background(self, *words: str) -> "Classes":
        """The same classes after one more, the background, which `words` stand for."""
        return Classes(
            names=("background", *self.names), prompts=(words or BACKGROUND, *self.prompts), background=0
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A published dataset. layout: how its files lie, see `evaluation.semantic`. table: int16 (256,), the
    class of a PNG's value, or IGNORED."""

    layout: str
    classes: Classes
    table: np.ndarray


def _values(values: Sequence[int], *, first: int = 0, others: int = IGNORED) -> np.ndarray:
    """The table in which these values are the classes `first`, `first` + 1, ..., all others `others`."""
    table = np.full(256, others, np.int16)
    table[list(values)] = np.arange(first, first + len(values))
    return table


def _pascal(names: Classes, layout: str, words: tuple[str, ...] | None) -> Benchmark:
    """Pascal's PNGs: 0 is background, classes follow. words: for a background; None leaves it out."""
    count = len(names.names)
    if words is None:
        return Benchmark(layout=layout, classes=names, table=_values(range(1, count + 1)))
    return Benchmark(layout=layout, classes=names.on_background(*words), table=_values(range(count + 1)))


def _of_set(name: str, prompts: Mapping[str, tuple[str, ...]] | None = None) -> Classes:
    return Classes.of(load_categories(name).names, prompts)


def _coco_object() -> Benchmark:
    things = load_categories("171").names[:COCO_THINGS]
    ids = [i for i in range(90) if i + 1 not in COCO_UNUSED]
    classes = Classes.of(things, {"person": (*PERSON, "body")}).on_background()
    # What nobody labelled is background too (GroupViT's conversion).
    return Benchmark(layout="coco-stuff", classes=classes, table=_values(ids, first=1, others=0))


def _context() -> Classes:
    return _of_set("pascal_context_59", {"diningtable": ("table",)})


BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "coco-stuff": lambda: Benchmark(
        layout="coco-stuff",
        classes=_of_set("171"),
        table=_values([i for i in range(182) if i + 1 not in COCO_UNUSED]),
    ),
    "coco-object": _coco_object,
    "ade150": lambda: Benchmark(layout="ade", classes=_of_set("ade150"), table=_values(range(1, 151))),
    "context59": lambda: _pascal(_context(), "context", None),
    "context60": lambda: _pascal(_context(), "context", ("background",)),
    "voc20": lambda: _pascal(Classes.of(VOC, VOC_PROMPTS), "voc", None),
    "voc21": lambda: _pascal(Classes.of(VOC, VOC_PROMPTS), "voc", ()),
    "cityscapes": lambda: Benchmark(
        layout="cityscapes", classes=_of_set("cityscapes_19"), table=_values(CITYSCAPES_IDS)
    ),
}
