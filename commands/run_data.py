"""The store that a run reads, and the annotated photos of its data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecli.commands.options import Options
from densecli.core import fs
from densecli.core.addresses import from_environment
from densecli.core.progress import say
from densecli.evaluation.config import MeasureSettings
from densecli.shards.datasets import Dataset, defaults_for, function_of
from densecli.shards.parted_store import JOIN, open_store
from densecli.shards.store import PARTS
from densecli.train.run_folder import RunFolder


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


def on_the_runs_data(options: Options, run: str | None, *, training: bool = False) -> Options:
    """The options, with the annotated photos of a run's own data set, their split and categories.

    What the options name stays. Which photos are taken is shown on standard error. Photos that the options
    name are taken with the run's categories, unless the options name a layout or categories too.

    Args:
        options: The options.
        run: Folder of the run, if there is one.
        training: Whether photos of the training split are needed too.
    """
    if "dataset" in options.given or not (store := store_of(run)):
        return options
    if "data" in options.given:
        return _with_the_runs_categories(options, store)
    if (own := annotated_photos(store, options.given, training=training)) is None:
        return options
    say(f"The run's data set is taken: {own['data']}, {own['split']}, categories {own['categories']}.")
    return Options(given={**options.given, **own}, json=options.json)


def _with_the_runs_categories(options: Options, store: str) -> Options:
    own = _defaults_of(store)
    categories = own.test_categories or (own.categories if own.annotated else "")
    if "categories" in options.given or categories in ("", MeasureSettings.categories):
        return options
    say(f"The categories of the run's data set are taken: {categories}.")
    return Options(given={**options.given, "categories": categories}, json=options.json)


def _defaults_of(store: str) -> Dataset:
    # Makes the built-in data sets known.
    import densecli.pipeline.sources  # noqa: F401

    return defaults_for(open_store(store).dataset["name"])


def annotated_photos(
    store: str, given: Mapping[str, Any], *, training: bool = False
) -> dict[str, str] | None:
    """Where the annotated photos of a store's own data set are; generated ones are written if need be.

    Args:
        store: The store.
        given: Values of `data`, `split`, `train_split` and `categories` that win over the data set's own.
        training: Whether photos of the training split are needed too.

    Returns:
        These four; None if the data set has no annotations and no `data` is given.
    """
    name = open_store(store).dataset["name"]
    dataset = _defaults_of(store)
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
        splits = [found["split"], *([found["train_split"]] if training else [])]
        _generate(name, dataset, folder, splits)
    return found


def _generate(name: str, dataset: Dataset, folder: Path, splits: list[str]) -> None:
    """Writes the annotated photos of a generated data set that are not there yet."""
    for split in splits:
        if not (folder / "annotations" / f"panoptic_{split}.json").is_file():
            say(f"{dataset.test_photos} annotated photos of {name} are written to {folder}.")
            function_of(dataset.annotated)(folder, split=split, count=dataset.test_photos)
