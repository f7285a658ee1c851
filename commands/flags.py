"""Flags of the command line that mean the same in every verb, and what verbs do with what they got."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from densecli.core.errors import DenseCLIError


class Pairs(click.ParamType):
    """NAME=VALUE, to (NAME, VALUE)."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        name, equals, rest = value.partition("=")
        if not (name and equals and rest):
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, rest


def flags(*names: str) -> Callable[[Callable], Callable]:
    """The named flags of FLAGS, so that a flag means the same in every verb."""

    def decorate(verb: Callable) -> Callable:
        for name in reversed(names):
            verb = FLAGS[name](verb)
        return verb

    return decorate


FLAGS: dict[str, Callable[[Callable], Callable]] = {
    "data": click.option(
        "--data", metavar="DIR", help="Folder of the photos, or a pattern or list of them [data/<dataset>]."
    ),
    "split": click.option("--split", metavar="NAME", help="Split of the dataset."),
    "limit": click.option(
        "--limit", type=click.IntRange(1), metavar="N", help="Use the first N photos only."
    ),
    "store": click.option("--store", metavar="URL", help="The store [stores/<dataset>-<canvas>]."),
    "run": click.option("--run", metavar="DIR", help="Folder of the run."),
    "weights": click.option(
        "--weights",
        type=Pairs(),
        multiple=True,
        metavar="NAME=PATH",
        help="Weights of a model, else weights/NAME.*; NAME=random:SEED for random ones. May repeat.",
    ),
    "student": click.option("--student", metavar="NAME", help="Architecture of the student."),
    "batch-size": click.option("--batch-size", type=click.IntRange(1), metavar="N"),
    "seed": click.option("--seed", type=int, default=0, show_default=True),
    "device": click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:N]."),
    "categories": click.option(
        "--categories", metavar="SET|FILE", help="133, 171, 273, 316, ade150, scenes, or a json or csv file."
    ),
    "text-embeddings": click.option(
        "--text-embeddings", metavar="FILE", help=".npy with a row per category [the model's text tower]."
    ),
    "canvas": click.option("--canvas", type=click.IntRange(16), metavar="PX", help="Side of the canvas."),
    "json": click.option(
        "--json", "json_file", metavar="FILE", help="Write the result as JSON (- for stdout)."
    ),
}


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings somebody gave: the others keep the defaults of the config they go to."""
    return {name: value for name, value in settings.items() if value is not None and value != ()}


def say(text: str, json_file: str | None, value: Any) -> None:
    """Prints the text and writes the value; where that goes to standard output, it goes there alone."""
    write_json(json_file, value)
    click.echo(text, err=json_file == "-")


def write_json(file: str | None, value: Any) -> None:
    if file == "-":
        json.dump(value, sys.stdout, indent=1)
        sys.stdout.write("\n")
    elif file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps(value, indent=1) + "\n")


def newest_store() -> str:
    """The store of stores/ that was made last, said on standard error; DenseCLIError where there is none."""
    stores = sorted(Path("stores").glob("*/store.json"), key=lambda path: path.stat().st_mtime)
    if not stores:
        raise DenseCLIError(
            "There is no store in stores/.",
            hint="Build one with densecli build-shards, or name it with --store.",
        )
    click.echo(f"The newest store is taken, {stores[-1].parent}.", err=True)
    return str(stores[-1].parent)
