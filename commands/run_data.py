"""The store that a run reads, and the annotated photos of its data set."""

from pathlib import Path

import click

from densecli.commands.options import Options
from densecli.core import fs
from densecli.core.addresses import from_environment
from densecli.core.progress import say
from densecli.shards.datasets import Dataset, defaults_for, function_of
from densecli.shards.parted_store import JOIN, open_store
from densecli.shards.store import PARTS
from densecli.train.run_folder import RunFolder


def store_of(run: str | None) -> str:
    """The store that a run reads, several as one address; empty if no run is named or it is not there."""
    folder = RunFolder(run) if run else None
    if folder is None or not folder.config.is_file():
        return ""
    store = str(folder.read_config().get("store") or "")
    first = store.split(JOIN, maxsplit=1)[0]
    there = first and any(fs.exists(fs.join(first, file)) for file in ("store.json", PARTS))
    return store if there else ""


def on_the_runs_data(options: Options, run: str | None, *, training: bool = False) -> Options:
    """The options, with the annotated photos of a run's own data set, their split and categories.

    What the options name stays. Which photos are taken is shown on standard error.

    Args:
        options: The options.
        run: Folder of the run, if there is one.
        training: Whether photos of the training split are needed too.
    """
    if "data" in options.given or "dataset" in options.given or not (store := store_of(run)):
        return options
    name = open_store(store).dataset["name"]
    dataset = defaults_for(name)
    if not (dataset.annotated or dataset.test_categories):
        return options
    folder = Path(from_environment("DENSECLI_DATA", "data")) / name
    categories = dataset.test_categories or dataset.categories
    names = {"categories": categories, "split": dataset.test_split, "train_split": dataset.split}
    found = {**names, **options.given, "data": str(folder)}
    if dataset.annotated:
        _generate(name, dataset, folder, [found["split"], *([found["train_split"]] if training else [])])
    say(f"The run's data set is taken, {name}: {folder}, {found['split']}, categories {found['categories']}.")
    return Options(given=found, json=options.json)


def _generate(name: str, dataset: Dataset, folder: Path, splits: list[str]) -> None:
    """Writes the annotated photos of a generated data set that are not there yet."""
    for split in splits:
        if not (folder / "annotations" / f"panoptic_{split}.json").is_file():
            click.echo(f"{dataset.test_photos} annotated photos of {name} are written to {folder}.", err=True)
            function_of(dataset.annotated)(folder, split=split, count=dataset.test_photos)
