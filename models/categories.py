"""Category sets: lists of category names in a fixed order, each a thing or stuff."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densecli.core.documents import parse_foreign
from densecli.core.errors import DenseCLIError
from densecli.core.registry import Registry, registry
from densecli.core.tables import csv_text

_SHAPES = (
    "Expected a JSON list of {name, thing}, or a CSV file with the columns name and thing (true or false)."
)
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True, eq=False)
class Categories:
    """A category set of D names.

    Attributes:
        name: Name of the set, or the path of its file.
        names: The D categories, in the order of the label indices.
        thing: Whether each is a thing, bool (D,); None if that is not known.
        note: A caveat about any accuracy on this set, which reports show above the numbers.
    """

    name: str
    names: tuple[str, ...]
    thing: NDArray[np.bool_] | None
    note: str = ""

    @classmethod
    def of(cls, name: str, *, things: Sequence[str], stuff: Sequence[str], note: str = "") -> "Categories":
        """Makes a set of things followed by stuff."""
        thing = np.arange(len(things) + len(stuff)) < len(things)
        return cls(name=name, names=(*things, *stuff), thing=thing, note=note)

    def __len__(self) -> int:
        return len(self.names)

    def thing_flags(self) -> NDArray[np.bool_]:
        """Whether each category is a thing, bool (D,). Raises DenseCLIError if that is not known."""
        if self.thing is None:
            raise DenseCLIError(
                f"The category set {self.name} does not say which of its names are things.",
                hint="Give a JSON or CSV file that says for every name whether it is a thing.",
            )
        return self.thing


CATEGORY_SETS: Registry[Categories] = registry("categories", noun="category set", of=Categories)
"""Category sets by name."""


def load_categories(set_or_file: str) -> Categories:
    """Loads a category set by name, or from a file.

    Args:
        set_or_file: Name of a registered set, such as 133 or ade150, or path of a .json or .csv file.

    Raises:
        DenseCLIError: The set is unknown, or the file has a duplicate, an empty name, or a thing flag that
            only some names have. (The published set of 316 names three categories twice.)
    """
    if set_or_file in CATEGORY_SETS:
        return CATEGORY_SETS[set_or_file]
    path = Path(set_or_file)
    if path.suffix not in (".json", ".csv"):
        error = CATEGORY_SETS.unknown(set_or_file)
        raise DenseCLIError(str(error), hint=f"{error.hint} You can also give a .json or .csv file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError:
        raise DenseCLIError(f"There is no category file {path}.", hint="Check the path.") from None
    except UnicodeDecodeError:
        raise DenseCLIError(f"The category file {path} is not UTF-8 text.", hint=_SHAPES) from None
    try:
        rows = parse_foreign(text.encode()) if path.suffix == ".json" else _csv_rows(text)
    except (ValueError, csv.Error) as error:
        raise DenseCLIError(f"The category file {path} cannot be read ({error}).", hint=_SHAPES) from None
    categories = _categories(str(path), rows)
    if twice := [name for name, count in Counter(categories.names).items() if count > 1]:
        raise DenseCLIError(
            f"{path} names {', '.join(map(repr, twice[:3]))} more than once.",
            hint="Remove the duplicates.",
        )
    return categories


def _csv_rows(text: str) -> list[dict[str, Any]]:
    rows = list(csv.DictReader(text.splitlines()))
    return [{**row, "name": csv_text(row["name"] or "")} if "name" in row else row for row in rows]


def _categories(source: str, rows: Any) -> Categories:
    named = isinstance(rows, list) and all(isinstance(row, dict) and "name" in row for row in rows)
    if not named or not rows:
        raise DenseCLIError(f"The category set {source} is not a list of names.", hint=_SHAPES)
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
            f"{names[i]!r} in {source} has no thing flag (true or false, not {values[i]!r}).", hint=_SHAPES
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
    CATEGORY_SETS.add(name, _categories(name, _PUBLISHED[name]), help=help)
    if alias:
        CATEGORY_SETS.add(alias, CATEGORY_SETS[name], help=f"Short for {name}.")
