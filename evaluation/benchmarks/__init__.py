"""Segmentation data sets: their classes and prompts, their files, and the meaning of their PNGs' values.

Each module registers data sets; a plug-in may register more. Prompts and background are those of SCLIP (Wang
et al., ECCV 2024), which ClearCLIP and ProxyCLIP use too. A class may have several prompts, and the best one
counts. The prompts of the background are a list of words for VOC21 and COCO-Object, and the word itself for
Context60. Pixels without a probable class are background as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.registry import Registry, registry
from densecli.models.categories import load_categories

IGNORED = -1
"""The class of pixels that do not count."""
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
        names: Their names.
        prompts: The texts of each class.
        background: Index of the background class, if there is one.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    background: int | None = None

    @classmethod
    def of(cls, names: Sequence[str], prompts: Mapping[str, tuple[str, ...]] | None = None) -> "Classes":
        """Classes with the prompts that `prompts` has for them, else with their name as the only prompt."""
        others = prompts or {}
        return cls(names=tuple(names), prompts=tuple(others.get(name, (name,)) for name in names))

    @classmethod
    def of_set(cls, name: str, prompts: Mapping[str, tuple[str, ...]] | None = None) -> "Classes":
        """The classes of a category set; see `of`."""
        return cls.of(load_categories(name).names, prompts)

    def on_background(self, *words: str) -> "Classes":
        """Adds background as the first class, with `words` or BACKGROUND as its prompts."""
        return Classes(
            names=("background", *self.names), prompts=(words or BACKGROUND, *self.prompts), background=0
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A segmentation data set.

    Attributes:
        classes: Its classes.
        table: (256,) int16: the class of each value in a PNG, or IGNORED.
        pairs: Finds the photos and PNGs of a split, sorted by name, given the data set's folder and the
            split. Raises DenseCLIError if there are none.
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
    """Makes a table: these PNG values get the classes `first`, `first` + 1, ..., all others get `others`."""
    table = np.full(256, others, np.int16)
    table[list(values)] = np.arange(first, first + len(values))
    return table


def first_folder(*folders: Path) -> Path:
    """Returns the first of the folders that exists.

    Raises:
        DenseCLIError: None exists.
    """
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DenseCLIError(
        f"There is no folder {' or '.join(map(str, folders))}.",
        hint="Give the folder of the data set as --data and one of its splits as --split.",
    )


def require_pairs(pairs: Sequence[Pair], place: Path) -> list[Pair]:
    """Returns the pairs.

    Raises:
        DenseCLIError: There are none; the message names `place`, where they should be.
    """
    if not pairs:
        raise DenseCLIError(f"There are no labelled photos in {place}.", hint="Give another --split.")
    return list(pairs)
