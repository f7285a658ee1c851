"""The masks in an annotation file in COCO's format, for photos of any data set."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from densecli.core import fs
from densecli.core.documents import parse_foreign
from densecli.core.errors import DenseCLIError
from densecli.core.tables import readable
from densecli.pipeline.sources.base import Item
from densecli.shards.annotation_values import shown
from densecli.shards.segmentation import PhotoMasks, annotations_of

HINT = (
    "Give --masks a json file in COCO's format: `images` with id and file_name, and `annotations` with "
    "image_id and segmentation (polygons or run lengths)."
)


class MaskFile(NamedTuple):
    """What an annotation file holds.

    Attributes:
        names: The photos that it names.
        entries: For each photo with annotations these as JSON, which takes a fraction of the memory.
    """

    names: tuple[str, ...]
    entries: Mapping[str, bytes]


@dataclass(frozen=True)
class FileMasks:
    """Reads the masks of a photo from an annotation file, which each process parses once.

    Attributes:
        file: Path or URL.
    """

    file: str

    def __call__(self, item: Item) -> PhotoMasks:
        """What is annotated of a photo, perhaps nothing. Raises the errors of `read_mask_file`."""
        entries = read_mask_file(self.file).entries.get(readable(item.ref))
        return annotations_of(json.loads(entries)) if entries else PhotoMasks()


@lru_cache(maxsize=1)
def read_mask_file(file: str) -> MaskFile:
    """Reads an annotation file in COCO's format.

    Raises:
        DenseCLIError: It is missing, damaged or of another layout.
    """
    try:
        document = parse_foreign(fs.read_bytes(file))
    except FileNotFoundError as error:
        raise DenseCLIError(f"There is no file {file}.", hint=HINT) from error
    except OSError as error:
        raise DenseCLIError(f"{file} cannot be read: {error.strerror or error}.", hint=HINT) from error
    except ValueError as error:
        raise DenseCLIError(f"The file of masks {file} is damaged: {error}.", hint=HINT) from error
    images, annotations = (
        document.pop(key, None) if isinstance(document, dict) else None for key in ("images", "annotations")
    )
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DenseCLIError(f"{file} does not have the layout of COCO's annotations.", hint=HINT)
    names: dict[Any, str] = {}
    for place, image in enumerate(images):
        about = image if isinstance(image, dict) else {}
        if not isinstance(about.get("id"), int | str) or not isinstance(about.get("file_name"), str):
            raise DenseCLIError(f"{file}: images[{place}] has no id or file_name.", hint=HINT)
        if about["id"] in names:
            raise DenseCLIError(f"{file}: two images have the id {shown(about['id'])}.", hint=HINT)
        names[about["id"]] = about["file_name"]
    found: dict[str, list[Any]] = {}
    for place, entry in enumerate(annotations):
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        name = names.get(image_id) if isinstance(image_id, int | str) else None
        if name is None:
            raise DenseCLIError(f"{file}: annotations[{place}] is of no image.", hint=HINT)
        kept = ("segmentation", "predicted_iou", "stability_score")
        found.setdefault(name, []).append({key: entry[key] for key in kept if key in entry})
    entries = {name: json.dumps(rows).encode() for name, rows in found.items()}
    return MaskFile(names=tuple(names.values()), entries=entries)
