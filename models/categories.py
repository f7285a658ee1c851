"""Category sets: names in a fixed order, each a thing or stuff."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densecli.core.errors import DenseCLIError
from densecli.scenes.vocabulary import STUFF, THINGS

ALIASES = {
    "133": "coco_panoptic_133",
    "171": "coco_stuff_171",
    "273": "coco_stuff_ade_273",
    "316": "coco_stuff_ade_316",
    "ade150": "ade_panoptic_150",
}
_SHAPES = "Expected a json list of {name, thing} or a csv with the columns name and thing, true or false."
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True, eq=False)
class Categories:
    """Names and, where known, whether each is a thing: bool (D,) or None."""

    name: str
    names: tuple[str, ...]
    thing: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.names)

    def thing_flags(self) -> NDArray[np.bool_]:
        """`thing`; a DenseCLIError where the set does not say."""
        if self.thing is None:
            raise DenseCLIError(
                f"The category set {self.name} does not say which of its names are things.",
                hint="Give a json or csv file that has a 'thing' for every name.",
            )
        return self.thing


def load_categories(set_or_file: str) -> Categories:
    """A shipped set by name or alias (133, 171, 273, 316, ade150), else a .json or .csv file.

    Raises DenseCLIError for an unknown set and for a file with a duplicate, an empty name, or a thing flag
    that only some names have. (The published set of 316 names three categories twice.)
    """
    sets = _shipped()
    name = ALIASES.get(set_or_file, set_or_file)
    if name in sets:
        return _categories(name, sets[name])
    path = Path(set_or_file)
    if path.suffix not in (".json", ".csv"):
        known = ", ".join([*sets, *(f"{alias} (= {full})" for alias, full in ALIASES.items())])
        raise DenseCLIError(
            f"There is no category set {set_or_file!r}.", hint=f"Name a .json or .csv file or one of {known}."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError:
        raise DenseCLIError(f"There is no category file {path}.", hint="Check the path.") from None
    except UnicodeDecodeError:
        raise DenseCLIError(f"The category file {path} is no UTF-8 text.", hint=_SHAPES) from None
    try:
        rows = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    except (json.JSONDecodeError, csv.Error) as error:
        raise DenseCLIError(f"The category file {path} cannot be read ({error}).", hint=_SHAPES) from None
    categories = _categories(str(path), rows)
    if twice := [name for name, count in Counter(categories.names).items() if count > 1]:
        raise DenseCLIError(
            f"{path} names {', '.join(map(repr, twice[:3]))} more than once.",
            hint="A name may appear only once.",
        )
    return categories


@cache
def _shipped() -> dict[str, list[dict[str, Any]]]:
    sets = json.loads((Path(__file__).parent / "data" / "categories.json").read_text())
    return {**sets, "scenes": [{"name": name, "thing": name in THINGS} for name in (*THINGS, *STUFF)]}


def _categories(source: str, rows: Any) -> Categories:
    named = isinstance(rows, list) and all(isinstance(row, dict) and "name" in row for row in rows)
    if not named or not rows:
        raise DenseCLIError(f"The category set {source} is no list of names.", hint=_SHAPES)
    names = tuple(str(row["name"] or "").strip() for row in rows)
    if "" in names:
        raise DenseCLIError(
            f"Category {names.index('') + 1} of {source} has an empty name.", hint="Every one needs a name."
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
