"""The store that a run reads, its categories, and the annotated photos of its data set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densecli.commands.options import Options
from densecli.core import fs
from densecli.core.addresses import from_environment
from densecli.core.progress import say
from densecli.evaluation.config import MeasureSettings
from densecli.shards.datasets import Dataset, defaults_for, function_of
from densecli.shards.parted_store import JOIN, open_store
from densecli.shards.store import PARTS
from densecli.train.run_folder import RunFolder

if TYPE_CHECKING:
    from densecli.models.categories import Categories


def store_of(run: str | None) -> str:
    """The store that a run reads, several as one address; empty if no run is named or it is not there.

    Args:
        run: Folder of the run, an export folder in it, or an exported file.
    """
    if not run:
        return ""
    given = Path(run)
    export = next((each for each in (given, given.parent) if each.name in ("export", "export-best")), None)
    folder = RunFolder(export.parent if export else given)
    if not folder.config.is_file():
        return ""
    store = str(folder.read_config().get("store") or "")
    first = store.split(JOIN, maxsplit=1)[0]
    there = first and any(fs.exists(fs.join(first, file)) for file in ("store.json", PARTS))
    return store if there else ""


def categories_of(store: str) -> "Categories":
    """The categories that the labels of a store are of, else those of its data set.

    Raises:
        DenseCLIError: There is no such store.
    """
    # Makes the built-in data sets known.
    import numpy as np

    import densecli.pipeline.sources  # noqa: F401
    from densecli.models.categories import Categories, load_categories

    opened = open_store(store)
    for column in opened.columns("targets"):
        if names := column.spec["target"].get("categories"):
            name = column.info.get("categories") or column.full_name
            things = np.array(column.spec["codec"]["things"], bool)
            return Categories(name=name, names=tuple(names), thing=things)
    return load_categories(defaults_for(opened.dataset["name"]).categories)


def has_annotations(store: str) -> bool:
    """Whether a store's own data set has annotated photos, so that a student can be measured on them."""
    # Makes the built-in data sets known.
    import densecli.pipeline.sources  # noqa: F401

    dataset = defaults_for(open_store(store).dataset["name"])
    return bool(dataset.annotated or dataset.test_categories)


def on_the_runs_data(
    options: Options,
    run: str | None,
    *,
    photos: int | None = None,
    training: int = 0,
    with_categories: bool = True,
) -> Options:
    """The options, with the annotated photos of a run's own data set, their split and categories.

    What the options name stays: of photos of the user's own, the categories alone are taken. What is taken
    is shown on standard error.

    Args:
        options: The options.
        run: Folder of the run, if there is one.
        photos: See `annotated_photos`.
        training: See `annotated_photos`.
        with_categories: Whether what is measured depends on `categories`; else none are taken.
    """
    if "dataset" in options.given or not (store := store_of(run)):
        return options
    if (own := annotated_photos(store, options.given, photos=photos, training=training)) is None:
        return options
    if "data" not in options.given:
        named = f", categories {own['categories']}" if with_categories else ""
        say(f"The run's data set is taken: {own['data']}, {own['split']}{named}.")
    elif with_categories and "categories" not in options.given and has_annotations(store):
        own = {"categories": own["categories"]}
        say(f"The categories of the run's data set are taken: {own['categories']}.")
    else:
        return options
    return Options(given={**options.given, **own}, json=options.json)


def annotated_photos(
    store: str, given: Mapping[str, Any], *, photos: int | None = None, training: int = 0
) -> dict[str, str] | None:
    """Where the annotated photos of a store's own data set are; generated ones are written if need be.

    Args:
        store: The store.
        given: Values of `data`, `split`, `train_split` and `categories` that win over the data set's own.
        photos: Number of photos that are needed, at most `Dataset.test_photos`; None for so many.
        training: Number of photos of the training split that are needed too.

    Returns:
        These four; None if the data set has no annotations and no `data` is given.
    """
    # Makes the built-in data sets known.
    import densecli.pipeline.sources  # noqa: F401

    name = open_store(store).dataset["name"]
    dataset = defaults_for(name)
    found = {each: getattr(MeasureSettings, each) for each in ("data", "split", "train_split", "categories")}
    if dataset.annotated or dataset.test_categories:
        folder = Path(from_environment("DENSECLI_DATA", "data")) / name
        categories = dataset.test_categories or dataset.categories
        found |= {"data": str(folder), "split": dataset.test_split, "categories": categories}
        found["train_split"] = dataset.split
    elif "data" not in given:
        return None
    found |= {each: given[each] for each in found if each in given}
    if dataset.annotated and "data" not in given:
        _generate(name, dataset, folder, found["split"], photos or dataset.test_photos)
        if training:
            _generate(name, dataset, folder, found["train_split"], training)
    return found


def _generate(name: str, dataset: Dataset, folder: Path, split: str, photos: int) -> None:
    """Writes so many annotated photos of a generated data set, at most `test_photos`, if fewer are there."""
    count = min(photos, dataset.test_photos)
    if _annotated(folder / "annotations" / f"panoptic_{split}.json") < count:
        say(f"{count} annotated photos of {name}, {split}, are written to {folder}.")
        function_of(dataset.annotated)(folder, split=split, count=count)


def _annotated(file: Path) -> int:
    """The number of photos in a file of panoptic annotations; 0 if it is not there, or damaged."""
    try:
        return len(json.loads(file.read_bytes())["images"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0
