"""Sources: the photos of a data set, listed once and loaded one by one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry
from densecli.core.registry import registry
from densecli.pipeline.config import WebSettings
from densecli.pipeline.sources.base import (
    Decoded,
    Index,
    Item,
    Load,
    LoadMasks,
    Source,
    SourceRequest,
    Unreadable,
)
from densecli.pipeline.sources.cut import Cut, ShuffledCut, shuffled_order
from densecli.pipeline.sources.tars import TarLister
from densecli.shards.datasets import DATASETS, function_of

__all__ = [
    "Decoded",
    "Index",
    "Item",
    "Load",
    "LoadMasks",
    "Source",
    "SourceRequest",
    "Unreadable",
    "find_tars",
    "open_source",
]

# Importing this makes the built-in sources known to DATASETS, where names are looked up.
registry("datasets", package=__name__)


def find_tars(dataset: str, data: str, split: str | None = None) -> dict[str, Entry]:
    """Finds the tars of a data set without reading them, sorted by path.

    Args:
        dataset: Name of a registered data set.
        data: Folder, pattern or URL of the tars.
        split: Part of the data set; None for the data set's default.

    Raises:
        DenseCLIError: The data set does not come in tars, or there is none.
    """
    found = DATASETS[dataset]
    if not found.tars:
        names = sorted(name for name, each in DATASETS.items() if each.tars)
        raise DenseCLIError(
            f"The data set {dataset} does not come in tars, and only such can be built in parts.",
            hint=f"Leave out --tars-per-part, or use --dataset {' or '.join(names)}.",
        )
    tars: dict[str, Entry] = function_of(found.tars)(SourceRequest(data=data, split=split or found.split))
    return tars


def open_source(
    dataset: str,
    data: str,
    split: str | None = None,
    limit: int | None = None,
    seed: int = SourceRequest.seed,
    index: Index | None = None,
    max_pixels: int = SourceRequest.max_pixels,
    web: WebSettings | None = None,
    cut: Cut = "listed",
    tars: Mapping[str, Entry] | None = None,
    lister: TarLister | None = None,
) -> Source:
    """Lists the photos of a data set.

    Args:
        dataset: Name of a registered data set.
        data: Folder, file, pattern or URL of the photos.
        split: Part of the data set; None for the data set's default.
        limit: Number of photos to list, from the start; None for all.
        seed: Seed of a generated data set.
        index: Remembers listings.
        max_pixels: Pixels of the largest photo that is decoded.
        web: What may be fetched from the addresses of a list; None for the defaults.
        cut: Order of the photos; `seed` is that of a shuffle.
        tars: The only tars to list, as `find_tars` gives them; None for all.
        lister: Lists tars elsewhere; None for threads of this process.

    Raises:
        DenseCLIError: The data set is unknown, or the folder, the split or the photos are missing.
    """
    found = DATASETS[dataset]
    request = SourceRequest(
        data=data,
        split=split or found.split,
        limit=limit,
        seed=seed,
        index=index,
        max_pixels=max_pixels,
        web=web or WebSettings(),
        tars=tars,
        lister=lister or TarLister(),
    )
    source: Source = function_of(found.source)(request)
    if max_pixels != SourceRequest.max_pixels:
        # Other photos are skipped: it is another data set.
        source = replace(source, options={**source.options, "max_pixels": max_pixels})
    if cut == "shuffled":
        blocks = source.blocks if source.blocks is not None else np.ones(len(source.items), np.int64)
        items = ShuffledCut(source.items, shuffled_order(blocks, seed))
        source = replace(source, items=items, options={**source.options, "cut": cut, "seed": seed})
    return source
