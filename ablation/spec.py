"""What an ablation asks for: a grid over the flags of `train`, and how its students are measured."""

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import click

from densecli.core.errors import DenseCLIError
from densecli.shards.datasets import DATASETS, Dataset, defaults_for

SPECS = Path(__file__).parent / "specs" / "coco"
# Flags that the ablation gives itself, or that make several results of one.
OWN = frozenset({"run", "json", "resume", "help", "dry-run", "report", "alphas"})
Value = str | int | float | bool | list


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The file of an ablation.

    title, about: what it shows, and after which paper. train, evaluate: flags of these verbs without their
    dashes; a list gives a flag several times. grid: flags of `train`, each with the values that it takes in
    turn. beside: models that are measured as they come.
    """

    title: str
    about: str = ""
    beside: tuple[str, ...] = ()
    train: Mapping[str, Value] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Value]]
    evaluate: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run: its own `settings` of the grid, and the words that `train` is called with, but for --run."""

    settings: Mapping[str, Value]
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder: theta-0.3-seed-0."""
        parts = (f"{flag}-{written(value)}" for flag, value in self.settings.items())
        return re.sub(r"[^A-Za-z0-9.=_]+", "-", "-".join(parts)).strip("-")


def shipped() -> dict[str, Path]:
    """Specs by name, such as coco/theta: those for COCO, then those of data sets that have their own."""
    folders = {name: dataset.ablations for name, dataset in DATASETS.items() if dataset.ablations}
    return {
        f"{name}/{path.stem}": path
        for name, folder in {"coco": SPECS, **folders}.items()
        for path in sorted(Path(folder).glob("*.toml"))
    }


def find_spec(name: str, dataset: str) -> Path:
    """Finds the file of a spec.

    Args:
        name: A path, or the name of a shipped spec, such as coco/theta. Without a folder, such as theta, the
            one for `dataset`, or for COCO where the data set has no specs of its own.
        dataset: Name of the store's data set.

    Raises:
        DenseCLIError: There is no such spec.
    """
    specs = shipped()
    for known in (name, f"{dataset if defaults_for(dataset).ablations else 'coco'}/{name}"):
        if known in specs:
            return specs[known]
    if not (path := Path(name)).is_file():
        raise DenseCLIError(
            f"There is no spec {name!r}.", hint=f"Name a .toml file, or one of these: {', '.join(specs)}."
        )
    return path


def load_spec(path: Path, flags: Mapping[str, Collection[str]]) -> Spec:
    """Reads a spec. flags: those that `train` and `evaluate` have, by verb.

    Raises DenseCLIError for what is no TOML, for a key that is not known, and for a grid that is none.
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DenseCLIError(f"The spec {path} cannot be read ({error}).", hint="It is a TOML file.") from None
    _check_keys(path, "", document, Spec.__dataclass_fields__)
    for table, verb in (("train", "train"), ("grid", "train"), ("evaluate", "evaluate")):
        if not isinstance(document.setdefault(table, {}), dict):
            raise DenseCLIError(f"{table} in {path} is no table.", hint=f"Write [{table}] and a line a flag.")
        _check_keys(path, table, document[table], set(flags[verb]) - OWN)
    grid = document["grid"]
    if not grid or not all(isinstance(values, list) and values for values in grid.values()):
        raise DenseCLIError(
            f"{path} has no grid of lists.", hint="Write [grid] and, for example, theta = [0.1, 0.3]."
        )
    document["beside"] = tuple(document.get("beside", ()))
    return Spec(**{"title": path.stem, **document})


def cells(spec: Spec) -> list[Cell]:
    """A run for every combination of the grid's values, the last flag's changing first, but for the seed: all
    settings come with one before any comes with the next, so that what is there early is a whole table."""
    flags = sorted(spec.grid, key=lambda flag: flag != "seed")
    found = []
    for values in product(*(spec.grid[flag] for flag in flags)):
        chosen = dict(zip(flags, values, strict=True))
        settings = {flag: chosen[flag] for flag in spec.grid}
        found.append(Cell(settings=settings, words=tuple(words({**spec.train, **settings}))))
    return found


def measured_on(spec: Spec, folder: Path, dataset: Dataset) -> Spec:
    """The spec with its students measured on the annotated photos that a data set writes into a folder."""
    chosen = {"split": dataset.test_split, "limit": 300, "categories": dataset.categories}
    return replace(spec, evaluate={**chosen, **spec.evaluate, "data": str(folder)})


def words(flags: Mapping[str, Value]) -> list[str]:
    """Flags as a command line has them: {"lr": 0.1, "loss": ["a=1", "b=2"], "compile": true}."""
    found: list[str] = []
    for flag, value in flags.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not False:
                found += [f"--{flag}"] if item is True else [f"--{flag}", str(item)]
    return found


def written(value: Value) -> str:
    """A value of the grid as tables and folders show it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _check_keys(path: Path, table: str, found: Mapping[str, Any], known: Collection[str]) -> None:
    for key in found:
        if key not in known:
            near = get_close_matches(key, known, n=3, cutoff=0.4) or sorted(known)
            raise DenseCLIError(
                f"{path} has a key {key!r} {f'in [{table}] ' if table else ''}that is not known.",
                hint=f"Perhaps {' or '.join(near)} is meant.",
            )


def flags_of(verb: click.Command) -> set[str]:
    """The flags of a verb without their dashes."""
    return {word.removeprefix("--") for param in verb.params for word in param.opts if word.startswith("--")}


def parsed(verb: click.Command, given: Sequence[str]) -> dict[str, Any]:
    """What the words of a command line mean to a verb. Raises DenseCLIError where they mean nothing."""
    try:
        with verb.make_context(verb.name, list(given)) as context:
            return context.params
    except click.UsageError as error:
        raise DenseCLIError(
            f"densecli {verb.name} cannot do what the spec asks for: {error.format_message()}",
            hint=f"See densecli {verb.name} --help.",
        ) from None
