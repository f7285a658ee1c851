"""COCO's standard layout, ROOT/<split>/*.jpg. Its annotations are not needed."""

import os

from pipeline.sources.base import Source, files_source, no_folder
from pipeline.sources.photos import PhotoLoader
from shards.errors import DenseCLIError


def coco_source(root: str, split: str, limit: int | None = None) -> Source:
    """The photos of one split.

    EXIF orientation is not applied: COCO's boxes and masks are in the pixels as they are stored.
    Raises DenseCLIError where the folder, the split or any photo is missing.
    """
    if not os.path.isdir(root):
        raise no_folder(root, "coco")
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        there = [e.name for e in os.scandir(root) if e.is_dir() and _sizes(e.path)]
        raise DenseCLIError(
            f"{root} has no split {split}.",
            hint=f"Splits there: {', '.join(sorted(there))}."
            if there
            else "The layout is ROOT/<split>/*.jpg, with splits such as train2017 and val2017.",
        )
    sizes = _sizes(folder)
    if not sizes:
        raise DenseCLIError(f"{folder} holds no .jpg photo.", hint="The layout is ROOT/<split>/*.jpg.")
    return files_source("coco", split, sizes, limit, PhotoLoader(root=folder, upright=False))


def _sizes(folder: str) -> dict[str, int]:
    with os.scandir(folder) as entries:
        return {e.name: e.stat().st_size for e in entries if e.name.endswith(".jpg") and e.is_file()}
