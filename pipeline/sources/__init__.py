"""Data sets by name."""

from pipeline.sources.base import Item, Source, Unreadable
from pipeline.sources.coco import coco_source
from pipeline.sources.folder import folder_source
from pipeline.sources.scenes import scenes_source
from shards.errors import DenseCLIError

__all__ = ["DATASETS", "Item", "Source", "Unreadable", "open_source"]

DATASETS = ("coco", "folder", "scenes")


def open_source(
    dataset: str, data: str, split: str | None = None, limit: int | None = None, seed: int = 0
) -> Source:
    """The first `limit` photos, by key, of `split` of a data set at `data` (`scenes` has a `seed` instead).

    Raises DenseCLIError for an unknown data set, and where the folder, the split or the photos are missing.
    """
    match dataset:
        case "coco":
            return coco_source(data, split or "train2017", limit)
        case "folder":
            return folder_source(data, split, limit)
        case "scenes":
            return scenes_source(split or "train", limit, seed)
    raise DenseCLIError(f"There is no data set {dataset}.", hint=f"Known: {', '.join(DATASETS)}.")
