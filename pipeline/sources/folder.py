"""Any folder of photos, with its subfolders."""

import os
from pathlib import Path

from pipeline.sources.base import Source, files_source, no_folder
from pipeline.sources.photos import PhotoLoader
from shards.errors import DenseCLIError

# Fixed, and not what the installed Pillow can open: the listing is the identity of the data.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def folder_source(root: str, split: str | None = None, limit: int | None = None) -> Source:
    """Every photo under `root`, or under `root`/`split` where a split is named.

    EXIF orientation is applied: there are no annotations in raw pixels to agree with, and a CLIP has seen
    photos upright. Hidden files and folders are passed over, links to folders are not followed.
    Raises DenseCLIError where the folder, the split or any photo is missing.
    """
    if not os.path.isdir(root):
        raise no_folder(root, "folder")
    folder = os.path.join(root, split) if split else root
    if not os.path.isdir(folder):
        there = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
        raise DenseCLIError(
            f"{root} has no split {split}.",
            hint=f"Folders there: {', '.join(there) or 'none'}; without --split the whole folder is taken.",
        )
    sizes = _sizes(Path(folder))
    if not sizes:
        raise DenseCLIError(
            f"{folder} and its subfolders hold no photo.",
            hint=f"Photos are files in {', '.join(EXTENSIONS)}.",
        )
    return files_source("folder", split or "", sizes, limit, PhotoLoader(root=folder, upright=True))


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(where, name)
            if not name.startswith(".") and path.suffix.lower() in EXTENSIONS and path.is_file():
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes
