"""Any folder of photos, with its subfolders."""

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.base import Source, files_source, no_folder
from densecli.pipeline.sources.photos import PhotoLoader

# Fixed, and not what the installed Pillow can open: the listing is the identity of the data.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def folder_source(root: str, split: str | None = None, limit: int | None = None) -> Source:
    """Every photo under `root`, or under `root`/`split` where a split is named.

    EXIF orientation is applied: there are no annotations in raw pixels to agree with, and a CLIP has seen
    photos upright. Hidden files and folders are passed over, links to folders are not followed.
    Raises DenseCLIError where the folder, the split or any photo is missing.
    """
    if not fs.is_folder(root):
        raise no_folder(root, "folder")
    folder = fs.join(root, split) if split else root
    if not fs.is_folder(folder):
        names = [name for name in fs.listdir(root) if not name.startswith(".")]
        there = [name for name in names if fs.is_folder(fs.join(root, name))]
        raise DenseCLIError(
            f"{root} has no split {split}.",
            hint=f"Folders there: {', '.join(there) or 'none'}; without --split the whole folder is taken.",
        )
    sizes = {
        name: entry.size
        for name, entry in fs.find(folder).items()
        if name.lower().endswith(EXTENSIONS) and not entry.is_folder
    }
    if not sizes:
        raise DenseCLIError(
            f"{folder} and its subfolders hold no photo.",
            hint=f"Photos are files in {', '.join(EXTENSIONS)}.",
        )
    return files_source("folder", split or "", sizes, limit, PhotoLoader(root=folder, upright=True))
