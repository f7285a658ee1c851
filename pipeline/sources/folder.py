"""Photos in any folder and its subfolders."""

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.base import Source, SourceRequest, files_source, no_folder
from densecli.pipeline.sources.photos import PhotoLoader
from densecli.shards.datasets import DATASETS, Dataset

# Fixed rather than what the installed Pillow can open: the listing is the identity of the data.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def folder_source(request: SourceRequest) -> Source:
    """Lists every photo in a folder and its subfolders.

    EXIF orientation is applied: no annotations refer to the pixels as stored, and CLIP models were trained on
    upright photos. Hidden files and folders are skipped; links to folders are not followed.

    Args:
        request: `data` is the folder; `split` names a subfolder to read alone.

    Raises:
        DenseCLIError: The folder or the split is missing, or holds no photo.
    """
    root, split = request.data, request.split
    if not fs.is_folder(root):
        raise no_folder(root, "folder")
    folder = fs.join(root, split) if split else root
    if not fs.is_folder(folder):
        names = [name for name in fs.listdir(root) if not name.startswith(".")]
        there = [name for name in names if fs.is_folder(fs.join(root, name))]
        raise DenseCLIError(
            f"{root} has no split {split}.",
            hint=f"Folders there: {', '.join(there) or 'none'}; leave --split out to read the whole folder.",
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
    return files_source(
        "folder",
        split,
        sizes,
        request.limit,
        PhotoLoader(root=folder, upright=True, max_pixels=request.max_pixels),
    )


DATASETS.add(
    "folder",
    Dataset(source=folder_source),
    help="Any folder of photos with its subfolders; a split is a subfolder.",
)
