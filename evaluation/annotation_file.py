"""A parsed annotation file of another program, and the sentences for its malformed parts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from densecli.core.documents import parse_foreign
from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain
from densecli.shards.annotation_values import Malformed, box_of, is_int, shown


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

    def images(self) -> list[dict[str, Any]]:
        """Its images, each with an id of its own. Raises DenseCLIError."""
        entries = self.objects("images")
        ids = set()
        for place, image in enumerate(entries):
            if not isinstance(image.get("id"), int | str):
                raise self.wrong(f"images[{place}] has no id")
            if image["id"] in ids:
                raise self.wrong(f"two images have the id {shown(image['id'])}")
            ids.add(image["id"])
        return entries

    def categories(self) -> list[dict[str, Any]]:
        """Its categories, each with an id and a name. Raises DenseCLIError."""
        entries = self.objects("categories")
        for place, entry in enumerate(entries):
            if not is_int(entry.get("id")) or not isinstance(entry.get("name"), str):
                raise self.wrong(f"categories[{place}] has no id that is a whole number, or no name")
        return entries


def category_of(entry: Mapping[str, Any], known: Collection[int]) -> int:
    """The category id of an object, one of the known. Raises Malformed."""
    category = entry.get("category_id")
    if not is_int(category) or category not in known:
        raise Malformed(
            f"has the category_id {shown(category)}, which none of its {len(known)} categories has"
        )
    return category


def corners_of(entry: Mapping[str, Any]) -> np.ndarray:
    """(4,) float64 xyxy in pixels of an object's `bbox`, which is x, y, width, height. Raises Malformed."""
    x, y, width, height = box_of(entry.get("bbox"))
    return np.array([x, y, x + width, y + height], np.float64)


def is_crowd(entry: Mapping[str, Any]) -> bool:
    """Whether an object is a crowd; one that does not say so is none. Raises Malformed."""
    crowd = entry.get("iscrowd")
    # The text "0" would be true.
    if crowd is not None and not (isinstance(crowd, int | float) and crowd in (0, 1)):
        raise Malformed(f"has the iscrowd {shown(crowd)}, neither 0 nor 1")
    return bool(crowd)


def file_name_of(entry: Mapping[str, Any]) -> str:
    """The file name of an image or annotation, which lies below its folder. Raises Malformed."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise Malformed("has no file_name")
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise Malformed(f"has the file_name {plain(name)}, which leads out of its folder")
    return name
