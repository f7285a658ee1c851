"""Photos in COCO's standard layout, ROOT/SPLIT/*.jpg. Annotations are read for their masks alone."""

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.annotation_masks import FileMasks
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


def coco_source(request: SourceRequest) -> Source:
    """Lists the photos of one split, of any extension and in subfolders too.

    EXIF orientation is not applied: COCO's boxes and masks refer to the pixels as stored.

    Args:
        request: `data` is the root folder.

    Raises:
        DenseCLIError: The folder or the split is missing, or holds no photo.
    """
    root, split = request.data, request.split
    if not fs.is_folder(root):
        raise no_folder(root, "coco")
    folder = fs.join(root, split)
    if not fs.is_folder(folder):
        folders = [name for name in fs.listdir(root) if fs.is_folder(fs.join(root, name))]
        there = [name for name in folders if find_photos(root, fs.join(root, name)).sizes]
        raise DenseCLIError(
            f"{root} has no split {split}.",
            hint=f"Splits there: {', '.join(there)}."
            if there
            else "The layout is ROOT/<split>/*.jpg, with splits such as train2017 and val2017.",
        )
    files = find_photos(root, folder, request.index)
    if not files.sizes:
        raise no_photo(f"{folder} holds no photo", "The layout is ROOT/<split>/*.jpg.", files.passed)
    annotated = fs.join(root, "annotations", f"instances_{split}.json")
    load = PhotoLoader(root=folder, upright=False, max_pixels=request.max_pixels)
    return files_source(
        "coco",
        split,
        files.sizes,
        request.limit,
        load,
        files.passed,
        index_bytes=files.index_bytes,
        masks=FileMasks(annotated) if fs.exists(annotated) else None,
        listed=files.listed,
    )


DATASETS.add(
    "coco",
    Dataset(source=coco_source, split="train2017", test_split="val2017", test_categories="133"),
    help="COCO's layout: DIR/SPLIT/*.jpg, annotations are needed for --regions masks alone.",
)
