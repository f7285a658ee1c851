"""The command `categories`: makes category sets."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import click

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.commands.text_files import read_texts
from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.settings import changed, setting
from densecli.core.tables import csv_table, plain, table
from densecli.shards.config import DeviceSettings, DryRunSettings
from densecli.train.trainer_config import TrainerConfig

if TYPE_CHECKING:
    from densecli.models.thing_stuff import Verdict

SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class CategoriesSettings(DeviceSettings, DryRunSettings):
    """The settings of categories."""

    listed: str | None = setting(
        None,
        flag="from",
        help='Names: a category set, names ("dog, sofa"), or a txt, json, csv or parquet file.',
        group="data",
        metavar="SET|FILE|NAMES",
        default_text="give --from-captions instead",
        path=True,
    )
    captions: str | None = setting(
        None,
        flag="from-captions",
        help="Captions: COCO's .json, or a .txt, .csv or .parquet file.",
        group="data",
        metavar="FILE",
        default_text="give --from instead",
        path=True,
    )
    column: str | None = setting(
        None,
        help="Column of a csv or parquet file.",
        group="data",
        metavar="NAME",
        default_text="name, or caption for captions",
    )
    words: str | None = setting(
        None,
        help="Category set, or a json or csv file, of names whose kind you know; it wins over the rules.",
        group="data",
        metavar="SET|FILE",
        default_text="none",
        path=True,
    )
    min_count: int = setting(
        1, help="Drops names that appear fewer than N times.", group="data", min=1, metavar="N"
    )
    student: str | None = setting(
        None,
        help="CLIP whose text tower compares unknown names with known ones.",
        group="model",
        metavar="NAME",
        default_text="unknown names are classified by rules alone",
    )
    weights: str | None = changed(TrainerConfig, "weights", help="Weights of that CLIP, as for train.")
    ask: bool = setting(
        True, help="Asks on a terminal about names of which the rules are not sure.", group="run"
    )
    out: str = setting(
        "categories.json", help="JSON file to write.", group="output", metavar="FILE", path=True
    )


class Category(TypedDict):
    """A name."""

    name: Annotated[str, "The name."]
    thing: Annotated[bool, "Whether it is a thing."]
    count: Annotated[int, "How often it was found."]
    why: Annotated[str, "Why it is taken for a thing or for stuff."]


class CategorySet(TypedDict):
    """A category set."""

    categories: Annotated[list[Category], "The most frequent first."]
    unsure: Annotated[list[str], "Names of which the rules are not sure."]
    unknown: Annotated[dict[str, int], "Frequent words of the captions that are no names here."]


@command(CategoriesSettings, results=(Result(fields=CategorySet),))
def categories(options: Options) -> None:
    """Make a category set from any list or from captions, and classify each name as thing or stuff by rules
    that give their reason.

    Writes the json that build-shards and relabel read, and a csv of the same name to look at. To correct it,
    change a line of either file and give that file as --words. With --student, names that no list knows are
    compared with known ones by the text tower of that CLIP.

    \b
    densecli categories --from-captions captions_train2017.json --min-count 50
    """
    from densecli.models.categories import load_categories
    from densecli.models.thing_stuff import classify_thing_stuff, counted, named_in, word_list

    config = options.make(CategoriesSettings)
    listed, captions, column = config.listed, config.captions, config.column
    if bool(listed) == bool(captions):
        raise click.UsageError("Give --from or --from-captions.")
    known = word_list(load_categories(config.words) if config.words else None)
    others = Counter[str]()
    if captions:
        names, others = named_in(read_texts(captions, column or "caption"), known)
    else:
        names = counted(_names(str(listed), column))
    kept = {name: count for name, count in names.most_common() if count >= config.min_count}
    if not kept:
        raise DenseCLIError(
            f"There is no name in {listed or captions} {config.min_count} times or more.",
            hint="Lower --min-count.",
        )
    embed = None
    if config.student:
        embed = _embedder(config.student, options.get("weights", ()), config.device)
    verdicts = classify_thing_stuff(kept, known, embed)
    if config.ask and sys.stdin.isatty():
        verdicts = [each if each.sure else _asked(each) for each in verdicts]
    rows = [{"name": v.name, "thing": v.thing, "count": v.count, "why": v.why} for v in verdicts]
    unsure = [v.name for v in verdicts if not v.sure]
    lines = [[v.name, "thing" if v.thing else "stuff", str(v.count), v.why] for v in verdicts]
    things = sum(v.thing for v in verdicts)
    text = [
        table([["name", "kind", "count", "why"], *lines[:SHOWN]]),
        *([f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []),
        f"{things} things and {len(lines) - things} stuff, {len(names) - len(kept)} names too rare",
    ]
    if unsure:
        shown = ", ".join(map(plain, unsure[:SHOWN])) + (", ..." if unsure[SHOWN:] else "")
        text.append(f"Not sure of {len(unsure)}: {shown}")
    if others:
        frequent = ", ".join(f"{word} {count}" for word, count in others.most_common(SHOWN))
        text.append(f"Frequent words that the list does not know: {frequent}")
    if not config.dry_run:
        made, sheet = (str(Path(config.out).with_suffix(suffix)) for suffix in (".json", ".csv"))
        fs.write_atomic(made, json.dumps(rows, indent=1).encode())
        cells = [{**row, "thing": str(row["thing"]).lower()} for row in rows]
        fs.write_atomic(sheet, csv_table(cells).encode())
        text.append(f"Written: {made}, {sheet}")
    unknown = dict(others.most_common(SHOWN))
    options.say("\n".join(text), {"categories": rows, "unsure": unsure, "unknown": unknown})


def _asked(verdict: "Verdict") -> "Verdict":
    """What the user says of a name of which the rules are not sure."""
    chosen = click.prompt(
        f"{plain(verdict.name)}: {verdict.why}. Which is it?",
        type=click.Choice(("thing", "stuff")),
        default="thing" if verdict.thing else "stuff",
        err=True,
    )
    return replace(verdict, thing=chosen == "thing", why="you said so", sure=True)


def _names(set_or_file: str, column: str | None) -> list[str]:
    from densecli.models.categories import load_categories

    if "," not in set_or_file and Path(set_or_file).suffix in (".txt", ".json", ".csv", ".parquet"):
        return read_texts(set_or_file, column or "name")
    return list(load_categories(set_or_file).names)


def _embedder(student: str, weights: Sequence[tuple[str, str]], device: str) -> Any:
    """Names -> (N, C) unit embeddings by the text tower of a CLIP."""
    from densecli.core.device import pick_device
    from densecli.models.checkpoints import load_model
    from densecli.models.prompts import TEMPLATES
    from densecli.models.text import text_embeddings
    from densecli.models.weights import weights_given

    model, _ = load_model(student, weights_given(student, weights), pick_device(device))
    return lambda names: text_embeddings(model, names, TEMPLATES["plain"])
