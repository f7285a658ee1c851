"""Data sets by name."""

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources.base import Decoded, Item, Load, Source, Unreadable
from densecli.pipeline.sources.coco import coco_source
from densecli.pipeline.sources.folder import folder_source
from densecli.pipeline.sources.sa1b import sa1b_source
from densecli.pipeline.sources.urls import urls_source
from densecli.pipeline.sources.volumes import Index
from densecli.pipeline.sources.webdataset import webdataset_source
from densecli.scenes.source import scenes_source

__all__ = ["DATASETS", "Decoded", "Index", "Item", "Load", "Source", "Unreadable", "open_source"]

DATASETS = ("coco", "folder", "sa1b", "scenes", "urls", "webdataset")


def open_source(
    dataset: str,
    data: str,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    index: Index | None = None,
) -> Source:
    """The first `limit` photos of `split` of a data set at `data` (`scenes` has a `seed` instead).

    index: what is kept of tars that were read before.

    Raises DenseCLIError for an unknown data set, and where the folder, the split or the photos are missing.
    """
    match dataset:
        case "coco":
            return coco_source(data, split or "train2017", limit)
        case "folder":
            return folder_source(data, split, limit)
        case "sa1b":
            return sa1b_source(data, split, limit, index)
        case "urls":
            return urls_source(data, split, limit)
        case "webdataset":
            return webdataset_source(data, split, limit, index)
        case "scenes":
            return scenes_source(split or "train", limit, seed)
    raise DenseCLIError(f"There is no data set {dataset}.", hint=f"Known: {', '.join(DATASETS)}.")
