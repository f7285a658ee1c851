"""The annotated photos of a run's own data set."""

from pathlib import Path

import click

from densecli.commands.options import Options
from densecli.core import fs
from densecli.core.addresses import from_environment
from densecli.shards.datasets import defaults_for, function_of
from densecli.shards.parted_store import JOIN, open_store
from densecli.shards.store import PARTS
from densecli.train.run_folder import RunFolder


def on_the_runs_data(options: Options, run: str | None, *, training: bool = False) -> Options:
    """The options, with the photos and categories of a run on a generated data set where none are named.

    Args:
        options: The options.
        run: Folder of the run, if there is one.
        training: Whether photos of the training split are needed too.
    """
    folder_of_run = RunFolder(run) if run else None
    if folder_of_run is None or "data" in options.given or not folder_of_run.config.is_file():
        return options
    store = folder_of_run.read_config().get("store")
    first = str(store or "").split(JOIN)[0]
    if not first or not any(fs.exists(fs.join(first, file)) for file in ("store.json", PARTS)):
        return options
    name = open_store(str(store)).dataset["name"]
    dataset = defaults_for(name)
    if not dataset.annotated or "dataset" in options.given:
        return options
    folder = Path(from_environment("DENSECLI_DATA", "data")) / name
    names = {"categories": dataset.categories, "split": dataset.test_split, "train_split": dataset.split}
    found = {**names, **options.given, "data": str(folder)}
    for split in (found["split"], *((found["train_split"],) if training else ())):
        if not (folder / "annotations" / f"panoptic_{split}.json").is_file():
            click.echo(f"{dataset.test_photos} annotated photos of {name} are written to {folder}.", err=True)
            function_of(dataset.annotated)(folder, split=split, count=dataset.test_photos)
    return Options(given=found, json=options.json)
