"""A parsed annotation file of another program, and the sentences for its malformed parts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from densecli.core.documents import parse_foreign
from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain

MOST = 1e9
"""Largest number, in pixels, that a box may have."""


@dataclass(frozen=True, kw_only=True)
class AnnotationFile:
    """A JSON file of annotations.

    Attributes:
        path: Its path.
        document: What it holds.
        noun: What it should be, such as "a panoptic annotation file".
        hint: What such a file holds.
    """

    path: Path
    document: Any
    noun: str
    hint: str

    @classmethod
    def read(cls, path: Path, noun: str, hint: str, *, option: str = "--data") -> "AnnotationFile":
        """Reads and parses a file, of which `option` says where it is. Raises DenseCLIError if that fails."""
        try:
            document = parse_foreign(path.read_bytes())
        except OSError as error:
            hint = f"Check {option}."
            raise DenseCLIError(f"Could not read {path}: {error.strerror}.", hint=hint) from error
        except ValueError as error:
            raise DenseCLIError(f"{path} is not {noun}: {error}.", hint=hint) from error
        return cls(path=path, document=document, noun=noun, hint=hint)

    def wrong(self, trouble: str) -> DenseCLIError:
        """The error for a malformed part; `trouble` names it."""
        return DenseCLIError(f"{self.path} is not {self.noun}: {trouble}.", hint=self.hint)

    def objects(self, key: str) -> list[dict[str, Any]]:
        """The objects of one of its lists. Raises DenseCLIError."""
        entries = self.document.get(key) if isinstance(self.document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self.wrong(f"it has no list of {key}")
        return entries

    def categories(self) -> list[dict[str, Any]]:
        """Its categories, each with an id and a name. Raises DenseCLIError."""
        entries = self.objects("categories")
        for place, entry in enumerate(entries):
            if not is_int(entry.get("id")) or not isinstance(entry.get("name"), str):
                raise self.wrong(f"categories[{place}] has no id that is a whole number, or no name")
        return entries

    def box(self, which: str, bbox: Any) -> np.ndarray:
        """(4,) float64 xyxy in pixels of a box x, y, width, height. Raises DenseCLIError."""
        numbers: list[Any] = bbox if isinstance(bbox, list) and len(bbox) == 4 else [None]
        if not all(_is_number(value) for value in numbers) or min(numbers[2:]) < 0:
            raise self.wrong(f"{which} has the bbox {shown(bbox)}, not x, y, width and height in pixels")
        x, y, width, height = numbers
        return np.array([x, y, x + width, y + height], np.float64)

    def crowd(self, which: str, entry: Mapping[str, Any]) -> bool:
        """Whether an object is a crowd; one that does not say so is none. Raises DenseCLIError."""
        crowd = entry.get("iscrowd")
        # The text "0" would be true.
        if crowd is not None and not (isinstance(crowd, int | float) and crowd in (0, 1)):
            raise self.wrong(f"{which} has the iscrowd {shown(crowd)}, neither 0 nor 1")
        return bool(crowd)

    def file_name(self, which: str, entry: Mapping[str, Any]) -> str:
        """The file name of an image or annotation, which lies below its folder. Raises DenseCLIError."""
        name = entry.get("file_name")
        if not isinstance(name, str) or not name or not name.isprintable():
            raise self.wrong(f"{which} has no file_name")
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise self.wrong(f"{which} has the file_name {plain(name)}, which leads out of its folder")
        return name


def is_int(value: Any) -> bool:
    """Whether a JSON value is a whole number that fits into an array."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62


def shown(value: Any) -> str:
    """A JSON value in an error's sentence."""
    if value is None:
        return "null"
    return "NaN" if isinstance(value, float) and math.isnan(value) else plain(repr(value), 60)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST
