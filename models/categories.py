"""Category sets: one by name, the user's names, or a file of them."""

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densecli.core.documents import parse_foreign
from densecli.core.errors import DenseCLIError
from densecli.core.tables import csv_text
from densecli.models.category_sets import CATEGORY_SETS as CATEGORY_SETS
from densecli.models.category_sets import SHAPES, of_rows
from densecli.models.category_sets import Categories as Categories
from densecli.models.thing_stuff import decide
from densecli.shards.config import ALL_THINGS

_FILES = (".txt", ".json", ".csv")


def load_categories(set_or_file: str) -> Categories:
    """Loads a category set: one by name, names separated by commas, or a file.

    Args:
        set_or_file: Name of a registered set, such as 133 or ade150; names separated by commas ("dog, sofa");
            or path of a .txt, .json or .csv file. `ALL_THINGS` may stand before the latter two.

    Raises:
        DenseCLIError: The set is unknown, or a list or file has a duplicate, an empty name, or a thing flag
            that only some names have. (The published set of 316 names three categories twice.)
    """
    if set_or_file.startswith(ALL_THINGS):
        found = load_categories(set_or_file.removeprefix(ALL_THINGS))
        return replace(found, name=set_or_file, thing=np.ones(len(found), bool), decided="")
    if set_or_file in CATEGORY_SETS:
        return CATEGORY_SETS[set_or_file]
    path = Path(set_or_file)
    if "," in set_or_file and not (path.suffix in _FILES and path.is_file()):
        names = [name.strip() for name in set_or_file.split(",")]
        # A comma at the end makes a list of a single name.
        return _own(set_or_file, [{"name": name} for name in names[: -1 if names[-1] == "" else None]])
    if path.suffix not in _FILES:
        error = CATEGORY_SETS.unknown(set_or_file)
        hint = f'{error.hint} You can also give names ("dog, sofa") or a {", ".join(_FILES)} file of names.'
        raise DenseCLIError(str(error), hint=hint)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError:
        raise DenseCLIError(f"There is no category file {path}.", hint="Check the path.") from None
    except UnicodeDecodeError:
        raise DenseCLIError(f"The category file {path} is not UTF-8 text.", hint=SHAPES) from None
    try:
        rows = _ROWS[path.suffix](text)
    except (ValueError, csv.Error) as error:
        raise DenseCLIError(f"The category file {path} cannot be read ({error}).", hint=SHAPES) from None
    return _own(str(path), rows)


def _own(source: str, rows: Any) -> Categories:
    """The user's list of rows."""
    categories = of_rows(source, rows)
    if twice := [name for name, count in Counter(categories.names).items() if count > 1]:
        raise DenseCLIError(
            f"{source} names {', '.join(map(repr, twice[:3]))} more than once.",
            hint="Remove the duplicates.",
        )
    if categories.thing is not None:
        return categories
    thing, decided = decide(categories.names)
    return replace(categories, thing=np.array(thing, bool), decided=decided)


def _txt_rows(text: str) -> list[dict[str, Any]]:
    return [{"name": line.strip()} for line in text.splitlines() if line.strip()]


def _json_rows(text: str) -> Any:
    rows = parse_foreign(text.encode())
    if isinstance(rows, list):
        return [{"name": row} if isinstance(row, str) else row for row in rows]
    return rows


def _csv_rows(text: str) -> list[dict[str, Any]]:
    rows = list(csv.DictReader(text.splitlines()))
    return [{**row, "name": csv_text(row["name"] or "")} if "name" in row else row for row in rows]


_ROWS: Mapping[str, Callable[[str], Any]] = {".txt": _txt_rows, ".json": _json_rows, ".csv": _csv_rows}
