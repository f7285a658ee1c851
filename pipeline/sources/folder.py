"""Photos in any folder and its subfolders."""

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.pictures import EXTENSIONS
from densecli.pipeline.sources.base import (
    Source,
    SourceRequest,
    files_source,
    find_photos,
    no_folder,
    no_photo,
)
from densecli.pipeline.sources.photos import PhotoLoader
from densecli.shards.datasets import DATASETS, Dataset


def folder_source(request: SourceRequest) -> Source:
    """Lists every photo in a folder and its subfolders.

    EXIF orientation is applied: no annotations refer to the pixels as stored, and CLIP models were trained on
    upright photos. Hidden files, links to folders and links out of `data` are passed over and counted.

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
    files = find_photos(root, folder, request.index)
    if not files.sizes:
        layout = f"Photos are files in {', '.join(EXTENSIONS)}."
        raise no_photo(f"{folder} and its subfolders hold no photo", layout, files.passed)
    load = PhotoLoader(root=folder, upright=True, max_pixels=request.max_pixels)
    return files_source(
        "folder",
        split,
        files.sizes,
        request.limit,
        load,
        files.passed,
        index_bytes=files.index_bytes,
        listed=files.listed,
    )


DATASETS.add(
    "folder",
    Dataset(source=folder_source, cut="shuffled"),
    help="Any folder of photos with its subfolders; a split is a subfolder.",
)
