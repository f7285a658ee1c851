"""Checks of the values in annotation files of other programs, such as COCO's.

A check raises `Malformed`, which says what is wrong with an object: whoever knows its place names it. So the
text of a place is made only where something is wrong; LVIS has 1.3 million objects.
"""

import math
from typing import Any, TypeGuard

from densecli.core.tables import plain

MAX_NUMBER = 1e9
"""Largest number, in pixels, that a box may have."""
OTHER_PHOTOS = (
    "Not even base names match: the boxes are of other photos. Check --split, --data and --proposals."
)


class Malformed(ValueError):
    """What is wrong with an object, to follow its name in a sentence: "has no id"."""


def is_int(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number that fits into an array."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a number of pixels that a photo could have, or a score."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def box_of(value: Any) -> tuple[float, float, float, float]:
    """x, y, width and height in pixels of a `bbox`. Raises Malformed."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)) or min(value[2:]) < 0:
        raise Malformed(f"has the bbox {shown(value)}, not x, y, width and height in pixels")
    x, y, width, height = map(float, value)
    return x, y, width, height


def shown(value: Any) -> str:
    """A JSON value in an error's sentence."""
    if value is None:
        return "null"
    return "NaN" if isinstance(value, float) and math.isnan(value) else plain(repr(value), 60)
