"""The file of an ablation: a grid over the flags of `train`, and how the students are evaluated."""

import hashlib
import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

from densecli.core.errors import DenseCLIError
from densecli.core.registry import Registry, registry, unknown_name
from densecli.shards.datasets import Dataset

ABLATIONS: Registry[Path] = registry("ablations", noun="folder of ablations", of=Path)
"""Folders of specs by name: those of a data set have its name."""
ABLATIONS.add("coco", Path(__file__).parent / "specs" / "coco", help="The papers' grids, on COCO.")
# Flags that an ablation sets itself, or that would give several results.
OWN = frozenset({"run", "json", "resume", "help", "dry-run", "report", "alphas", "config", "plugin"})
Value = str | int | float | bool | list[Any]
MOST_CELLS = 10_000
"""Largest number of runs of a grid: more are surely a mistake."""
LONGEST_NAME = 200
"""Largest number of characters in the name of a run's folder; file systems allow 255 bytes."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The content of an ablation's file.

    Attributes:
        title: Title of the report.
        about: What the ablation shows, and after which paper.
        beside: Models that are evaluated without training, for comparison.
        train: Flags of `train` without their dashes; a list repeats its flag.
        grid: Flags of `train`, each with a list of values.
        evaluate: Flags of `evaluate`. Of several tasks, each is measured.
    """

    title: str
    about: str = ""
    beside: tuple[str, ...] = ()
    train: Mapping[str, Value] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Value]]
    evaluate: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the grid.

    Attributes:
        settings: A value for each flag of the grid.
        arguments: All arguments of `train` except --run.
    """

    settings: Mapping[str, Value]
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run's folder, such as theta-0.3-seed-0."""
        text = "-".join(f"{flag}-{value_text(value)}" for flag, value in self.settings.items())
        name = re.sub(r"[^A-Za-z0-9.=_]+", "-", text).strip("-")
        if len(name) <= LONGEST_NAME:
            return name
        return f"{name[: LONGEST_NAME - 13]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def shipped() -> dict[str, Path]:
    """Specs by name, such as coco/theta."""
    return {
        f"{name}/{path.stem}": path
        for name, folder in sorted(ABLATIONS.items())
        for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)
    }


def shipped_text() -> str:
    """The names and titles of the shipped specs, and the folders that they are in."""
    specs = shipped()
    wide = max(map(len, specs))
    titles = {name: tomllib.loads(path.read_text()).get("title", "") for name, path in specs.items()}
    lines = [f"{name:{wide}}  {title}".rstrip() for name, title in titles.items()]
    folders = {name.partition("/")[0]: path.parent for name, path in specs.items()}
    return "\n".join([*lines, "", *(f"{name}: {folder}" for name, folder in folders.items())])


def find_spec(name: str, dataset: str) -> Path:
    """Finds the file of a spec.

    Args:
        name: A path, or the name of a shipped spec, such as coco/theta. A name without a folder, such as
            theta, means the spec for `dataset`, or for COCO if the data set has no specs of its own.
        dataset: Name of the store's data set.

    Raises:
        DenseCLIError: There is no such spec.
    """
    specs = shipped()
    folder = f"{dataset if dataset in ABLATIONS else 'coco'}/"
    for known in (name, f"{folder}{name}"):
        if known in specs:
            return specs[known]
    if not (path := Path(name)).is_file():
        short = [spec.removeprefix(folder) for spec in specs if spec.startswith(folder)]
        names = list(specs) if "/" in name else short
        raise unknown_name(
            "ablation", name, names, more="densecli ablate --list lists all; a .toml file will do."
        )
    return path


def load_spec(path: Path, flags: Mapping[str, Collection[str]], *, grid_needed: bool = True) -> Spec:
    """Reads a spec.

    Args:
        path: A TOML file.
        flags: Flags of `train` and of `evaluate`, by command.
        grid_needed: Whether a spec without a grid is refused.

    Raises:
        DenseCLIError: The file is not TOML, has an unknown key or a value of the wrong type, or has no grid
            of at most `MOST_CELLS` runs.
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DenseCLIError(f"The spec {path} cannot be read ({error}).", hint="Give a TOML file.") from None
    _check_keys(path, "", document, Spec.__dataclass_fields__)
    for table, command in (("train", "train"), ("grid", "train"), ("evaluate", "evaluate")):
        if not isinstance(document.setdefault(table, {}), dict):
            raise DenseCLIError(
                f"{table} in {path} is not a table.", hint=f"Write [{table}], then one line for each flag."
            )
        _check_keys(path, table, document[table], set(flags[command]) - OWN)
        for flag, value in document[table].items():
            if not all(isinstance(each, str | int | float) for each in _leaves(value)):
                raise DenseCLIError(
                    f"{flag} in [{table}] of {path} is {value!r}.",
                    hint="Give a text, a number, true or false, or a list of these.",
                )
    for key in ("title", "about"):
        if not isinstance(document.get(key, ""), str):
            raise DenseCLIError(f"{key} in {path} is not a text.", hint=f'Write {key} = "...".')
    beside = document.get("beside", [])
    if not (isinstance(beside, list) and all(isinstance(name, str) for name in beside)):
        raise DenseCLIError(
            f"beside in {path} is not a list of names.", hint='Write beside = ["openai/b16"].'
        )
    grid = document["grid"]
    if (grid_needed and not grid) or not all(isinstance(values, list) and values for values in grid.values()):
        raise DenseCLIError(
            f"{path} has no grid of lists.", hint="Write [grid], then lines such as theta = [0.1, 0.3]."
        )
    if (count := math.prod(len(values) for values in grid.values())) > MOST_CELLS:
        raise DenseCLIError(
            f"The grid of {path} has {count:,} runs, more than {MOST_CELLS:,}.",
            hint="Shorten its lists, or split it into several specs.",
        )
    return Spec(**{"title": path.stem, **document, "beside": tuple(dict.fromkeys(beside))})


def cells(spec: Spec) -> list[Cell]:
    """The runs of the grid: one for each combination of values; equal values, such as 0.3 and "0.3", are one.

    The seed changes last, so that an unfinished ablation already has every setting. Of the other flags, the
    last one changes first.

    Raises:
        DenseCLIError: Two runs would have the same folder.
    """
    flags = sorted(spec.grid, key=lambda flag: flag != "seed")
    found: dict[tuple[str, ...], Cell] = {}
    folders: dict[str, Cell] = {}
    for values in product(*(spec.grid[flag] for flag in flags)):
        chosen = dict(zip(flags, values, strict=True))
        settings = {flag: chosen[flag] for flag in spec.grid}
        cell = Cell(settings=settings, arguments=tuple(arguments({**spec.train, **settings})))
        if found.setdefault(cell.arguments, cell) is cell and folders.setdefault(cell.name, cell) is not cell:
            raise DenseCLIError(
                f"Two runs of the grid would have the folder {cell.name!r}.",
                hint="Their values differ only in punctuation: change one of them, or split the spec.",
            )
    return list(found.values())


def measured_on(spec: Spec, folder: Path, dataset: Dataset) -> Spec:
    """Changes a spec so that students are evaluated on annotated photos generated by a data set."""
    chosen: dict[str, Value] = {
        "split": dataset.test_split,
        "limit": dataset.test_photos,
        "categories": dataset.categories,
    }
    return replace(spec, evaluate={**chosen, **spec.evaluate, "data": str(folder)})


def evaluations(flags: Mapping[str, Value]) -> list[list[str]]:
    """Arguments of `evaluate` from the flags of a spec: once for each of its tasks."""
    tasks = flags.get("task", [])
    if not isinstance(tasks, list):
        return [arguments(flags)]
    others = {flag: value for flag, value in flags.items() if flag != "task"}
    return [arguments({"task": task, **others}) for task in tasks] or [arguments(others)]


def arguments(flags: Mapping[str, Value]) -> list[str]:
    """Command-line arguments of flags such as {"lr": 0.1, "loss": ["a=1", "b=2"], "compile": true}."""
    found: list[str] = []
    for flag, value in flags.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not False:
                found += [f"--{flag}"] if item is True else [f"--{flag}", str(item)]
    return found


def value_text(value: Value) -> str:
    """A value of the grid, as tables and folder names show it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _leaves(value: Any) -> Iterator[Any]:
    """Yields the value itself, or the values in its lists."""
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _check_keys(path: Path, table: str, found: Mapping[str, Any], known: Collection[str]) -> None:
    for key in found:
        if key not in known:
            near = get_close_matches(key, known, n=3, cutoff=0.4)
            raise DenseCLIError(
                f"{path} has an unknown key {key!r}{f' in [{table}]' if table else ''}.",
                hint=f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(sorted(known))}.",
            )
