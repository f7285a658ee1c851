"""The published category sets, and what a category set is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densecli.core.errors import DenseCLIError
from densecli.core.progress import say_once
from densecli.core.registry import Registry, registry

SHAPES = (
    "Expected a .txt with a name on each line, a JSON list of names or of {name, thing}, or a CSV file with "
    "the columns name and, if you like, thing (true or false)."
)
_FILES = (".txt", ".json", ".csv")
"""What a list of categories looks like, for hints."""
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True, eq=False)
class Categories:
    """A category set of D names.

    Attributes:
        name: Name of the set, or the path of its file.
        names: The D categories, in the order of the label indices.
        thing: Whether each is a thing, bool (D,); None if that is not known.
        note: A caveat about any accuracy on this set, which reports show above the numbers.
        decided: What rules, not the list itself, say of things; the user is told where it matters.
    """

    name: str
    names: tuple[str, ...]
    thing: NDArray[np.bool_] | None
    note: str = ""
    decided: str = ""

    @classmethod
    def of(cls, name: str, *, things: Sequence[str], stuff: Sequence[str], note: str = "") -> "Categories":
        """Makes a set of things followed by stuff."""
        thing = np.arange(len(things) + len(stuff)) < len(things)
        return cls(name=name, names=(*things, *stuff), thing=thing, note=note)

    def __len__(self) -> int:
        return len(self.names)

    def thing_flags(self) -> NDArray[np.bool_]:
        """Whether each category is a thing, bool (D,); a user whose list does not say so is told once.

        Raises:
            DenseCLIError: That is not known.
        """
        if self.thing is None:
            raise DenseCLIError(
                f"The category set {self.name} does not say which of its names are things.",
                hint="Give a JSON or CSV file that says for every name whether it is a thing.",
            )
        if self.decided:
            _tell(self.decided)
        return self.thing


@cache
def _tell(line: str) -> None:
    say_once(line)


CATEGORY_SETS: Registry[Categories] = registry("categories", noun="category set", of=Categories)
"""Category sets by name."""


def of_rows(source: str, rows: Any) -> Categories:
    """Makes a set of rows with a name and, all or none, a thing flag. Raises DenseCLIError."""
    named = isinstance(rows, list) and all(isinstance(row, dict) and "name" in row for row in rows)
    if not named or not rows:
        raise DenseCLIError(f"The category set {source} is not a list of names.", hint=SHAPES)
    names = tuple(str(row["name"] or "").strip() for row in rows)
    if "" in names:
        raise DenseCLIError(
            f"Category {names.index('') + 1} of {source} has an empty name.",
            hint="Give every category a name.",
        )
    thing = _things(source, names, [row.get("thing") for row in rows])
    return Categories(name=source, names=names, thing=thing)


def _things(source: str, names: Sequence[str], values: Sequence[Any]) -> NDArray[np.bool_] | None:
    if all(value is None or value == "" for value in values):
        return None
    flags = [_FLAGS.get(str(value).strip().lower()) for value in values]
    if None in flags:
        i = flags.index(None)
        raise DenseCLIError(
            f"{names[i]!r} in {source} has no thing flag (true or false, not {values[i]!r}).", hint=SHAPES
        )
    return np.array(flags, dtype=bool)


_PUBLISHED = json.loads((Path(__file__).parent / "data" / "categories.json").read_text())
for name, alias, help in (
    ("coco_panoptic_133", "133", "COCO panoptic: 80 things and 53 kinds of stuff."),
    ("coco_stuff_171", "171", "COCO-Stuff: 80 things and 91 kinds of stuff."),
    ("coco_stuff_ade_273", "273", "COCO-Stuff and ADE20K merged: 160 things and 113 kinds of stuff."),
    ("coco_stuff_ade_316", "316", "COCO-Stuff and ADE20K, DenseVLM's: 204 things and 112 kinds of stuff."),
    ("ade_panoptic_150", "ade150", "ADE20K panoptic: 100 things and 50 kinds of stuff."),
    ("pascal_context_59", "", "Pascal Context, without thing flags."),
    ("cityscapes_19", "", "Cityscapes: 8 things and 11 kinds of stuff."),
):
    CATEGORY_SETS.add(name, of_rows(name, _PUBLISHED[name]), help=help)
    if alias:
        CATEGORY_SETS.add(alias, CATEGORY_SETS[name], help=f"Short for {name}.")
