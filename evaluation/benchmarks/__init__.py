"""Segmentation data sets: their classes and prompts, where their files lie, what the values of a PNG mean.

Each module registers data sets; a plug-in may register more. Prompts and background are those of SCLIP (Wang
et al., ECCV 2024), which ClearCLIP and ProxyCLIP took over: a class may have several names, of which the best
counts; the background of VOC21 and COCO-Object is a list of words for what lies behind things, that of
Context60 the word itself; a pixel without a likely class is background as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.registry import Registry, registry
from densecli.models.categories import load_categories

IGNORED = -1
"""Class of pixels that do not count."""
BACKGROUND = (
    *("sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sands", "desk", "bed"),
    *("building", "cloud", "lamp", "door", "window", "wardrobe", "ceiling", "shelf", "curtain", "stair"),
    *("floor", "hill", "rail", "fence"),
)
_CLOTHES = ("shirt", "jeans", "dress", "sweater", "skirt", "jacket")
PERSON = ("person", *(f"person in {piece}" for piece in _CLOTHES))
Pair = tuple[Path, Path]
"""A photo and the PNG with its labels."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names: Of the classes.
        prompts: For each class, the texts that stand for it.
        background: Index of the class that is background, if there is one.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    background: int | None = None

    @classmethod
    def of(cls, names: Sequence[str], prompts: Mapping[str, tuple[str, ...]] | None = None) -> "Classes":
        """Classes whose prompts are their names, except those that `prompts` has others for."""
        others = prompts or {}
        return cls(names=tuple(names), prompts=tuple(others.get(name, (name,)) for name in names))

    @classmethod
    def of_set(cls, name: str, prompts: Mapping[str, tuple[str, ...]] | None = None) -> "Classes":
        """The classes of a category set; see `of`."""
        return cls.of(load_categories(name).names, prompts)

    def on_background(self, *words: str) -> "Classes":
        """The same classes after a first one, the background, with `words` or BACKGROUND as its prompts."""
        return Classes(
            names=("background", *self.names), prompts=(words or BACKGROUND, *self.prompts), background=0
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A segmentation data set.

    Attributes:
        classes: Its classes.
        table: (256,) int16, the class of each value in a PNG, or IGNORED.
        pairs: Finds the photos and PNGs of a split, sorted by name, given the data set's folder and the
            split. Raises DenseCLIError where there are none.
    """

    classes: Classes
    table: np.ndarray
    pairs: Callable[[Path, str], list[Pair]]


BENCHMARKS: Registry[Callable[[], Benchmark]] = registry(
    "benchmarks",
    package="densecli.evaluation.benchmarks",
    noun="segmentation data set",
    of=Callable,
)


def value_table(values: Sequence[int], *, first: int = 0, others: int = IGNORED) -> np.ndarray:
    """The table in which these PNG values are the classes `first`, `first` + 1, ..., all others `others`."""
    table = np.full(256, others, np.int16)
    table[list(values)] = np.arange(first, first + len(values))
    return table


def first_folder(*folders: Path) -> Path:
    """The first folder that exists.

    Raises:
        DenseCLIError: None does.
    """
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DenseCLIError(
        f"There is no folder {' nor '.join(map(str, folders))}.",
        hint="--data is the data set's own folder and --split one of its splits.",
    )


def require_pairs(pairs: Sequence[Pair], place: Path) -> list[Pair]:
    """The pairs.

    Raises:
        DenseCLIError: There are none; it names the place where they were looked for.
    """
    if not pairs:
        raise DenseCLIError(f"{place} names no labelled photo.", hint="Give another split.")
    return list(pairs)
