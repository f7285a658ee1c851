"""An ablation: the runs of a spec one after another, each measured, and none that is finished done again."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from densecli.ablation.spec import Cell, Spec, Value, cells, words
from densecli.core import fs
from densecli.core.errors import DenseCLIError, Interrupted
from densecli.evaluation.report import FIGURES, OTHER_FIGURES

Resume = Literal["interrupted", "never", "overwrite"]
RECORD = "ablation.json"
"""In a run's folder: what was asked for and what was measured, written when it was."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """What the words of a run do, told by somebody who knows training as well.

    flags: of `train` and `evaluate`, by verb. columns: the words of `train` -> keys of the target columns it
    would read, by kind; trains nothing, and raises DenseCLIError where one is missing. train, evaluate: words
    -> their JSON.
    """

    flags: Mapping[str, Collection[str]]
    columns: Callable[[Sequence[str]], Mapping[str, str]]
    train: Callable[[Sequence[str]], Mapping[str, Any]]
    evaluate: Callable[[Sequence[str]], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A run, or without settings a model measured as it comes. figures: by heading; error: why there are
    none."""

    name: str
    settings: Mapping[str, Value] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    random_weights: bool = False
    error: str = ""


def check(spec: Spec, runner: Runner) -> dict[str, Mapping[str, str]]:
    """The columns that each cell reads, by the cell's name.

    Raises one DenseCLIError for all that are missing, with the commands that make them.
    """
    found: dict[str, Mapping[str, str]] = {}
    messages: dict[str, None] = {}
    hints: dict[str, None] = {}
    for cell in cells(spec):
        try:
            found[cell.name] = runner.columns(cell.words)
        except DenseCLIError as error:
            messages[str(error)] = hints[error.hint] = None
    if messages:
        raise DenseCLIError(" ".join(messages), hint=" ".join(hints))
    return found


def run_all(spec: Spec, folder: Path, runner: Runner, *, canvas: int, resume: Resume) -> list[Done]:
    """The models of `spec.beside`, then every cell: what each measured, told on standard error as it comes.

    canvas: the store's. resume: see `run_cell`. Raises what `check` does, before the first run.
    """
    columns = check(spec, runner)
    todo: list[Callable[[], Done]] = [
        *(
            partial(measure_model, spec, name, folder, runner, canvas=canvas, resume=resume)
            for name in spec.beside
        ),
        *(partial(run_cell, spec, c, columns[c.name], folder, runner, resume=resume) for c in cells(spec)),
    ]
    done = []
    for number, step in enumerate(todo, start=1):
        result = step()
        shown = (each for each in result.figures.items() if "top-5" not in each[0])
        figures = ", ".join(f"{name} {value:.1f}" for name, value in shown)
        click.echo(f"{number}/{len(todo)} {result.name}: {result.error or figures}", err=True)
        done.append(result)
    return done


def run_cell(
    spec: Spec, cell: Cell, columns: Mapping[str, str], folder: Path, runner: Runner, *, resume: Resume
) -> Done:
    """Trains and measures a cell in FOLDER/NAME, or reads what it measured.

    resume: as of `train`; with `interrupted` a finished cell is not touched. A failure is told by the result;
    what ends all raises: a SIGTERM, after which the same cell goes on where it stood, is Interrupted.
    """
    run = folder / cell.name
    measure = words(spec.evaluate)
    asked = {"train": list(cell.words), "evaluate": measure, "columns": dict(columns)}
    if resume == "interrupted" and (found := _recorded(run / RECORD, asked)):
        return Done(name=cell.name, settings=cell.settings, **_figures(found))
    try:
        trained = runner.train([*cell.words, "--run", str(run), "--resume", resume])
        if not trained["export"]:
            raise Interrupted(15, f"SIGTERM stopped {run}.", hint="The same command goes on where it stood.")
        result = runner.evaluate([*measure, "--run", str(run)])
    except Interrupted:
        raise
    except Exception as error:  # one run's lack of memory is not to end a night of others
        return Done(name=cell.name, settings=cell.settings, error=_sentence(error))
    _record(run / RECORD, asked, result)
    return Done(name=cell.name, settings=cell.settings, **_figures(result))


def measure_model(
    spec: Spec, name: str, folder: Path, runner: Runner, *, canvas: int, resume: Resume
) -> Done:
    """What `evaluate` says of a model as it comes, on the store's canvas unless the spec says another."""
    given = spec.train.get("weights", [])
    weights = [w for w in (given if isinstance(given, list) else [given]) if str(w).startswith(f"{name}=")]
    asked = {"evaluate": words({"canvas": canvas, **spec.evaluate, "student": name, "weights": weights})}
    record = folder / f"{name}.json"
    result = _recorded(record, asked) if resume == "interrupted" else None
    if result is None:
        try:
            result = runner.evaluate(asked["evaluate"])
        except Exception as error:  # as of a run
            return Done(name=name, error=_sentence(error))
        _record(record, asked, result)
    return Done(name=name, **_figures(result))


def photos_seen(run: Path) -> tuple[Mapping[str, str], int]:
    """The keys of the columns that a finished run read, by kind, and how many photos it was shown."""
    config = json.loads((run / "config.json").read_bytes())
    return config["columns"], config["total_steps"] * config["samples_per_step"]


def _recorded(path: Path, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was measured when just this was asked for."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found["result"] if found["asked"] == asked else None


def _record(path: Path, asked: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    fs.write_atomic(str(path), json.dumps({"asked": asked, "result": result}, indent=1).encode())


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Of the JSON of `evaluate`: headings and numbers, and whether weights were random."""
    first = next(iter(result.values()))
    if not isinstance(first, Mapping):  # coupling ratios by title
        return {"figures": dict(result)}
    named = {heading: first.get(field) for heading, field in {**FIGURES, **OTHER_FIGURES}.items()}
    return {
        "figures": {heading: value for heading, value in named.items() if value is not None},
        "random_weights": first["random_weights"],
    }


def _sentence(error: Exception) -> str:
    if isinstance(error, DenseCLIError):
        return f"{error} {error.hint}".strip()
    return f"{type(error).__name__}: {error}"
