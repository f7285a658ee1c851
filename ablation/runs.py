"""Trains and evaluates the runs of an ablation, one after another, except those that are finished."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import click

from densecli.ablation.spec import Cell, Spec, Value, arguments, cells, evaluations
from densecli.core import fs
from densecli.core.documents import read_document
from densecli.core.errors import DenseCLIError, Interrupted, OtherRun
from densecli.core.metrics import METRICS
from densecli.core.tables import CELL_LIMIT, plain

Resume = Literal["interrupted", "never", "overwrite"]
RECORD = "ablation.json"
"""File in a run's folder with its arguments and its results."""
VERSION = 3
"""Version of these files. Since 2, rows 2 and 3 of `--decoupling` are those of DenseVLM's table; since 3,
methods set the learning rate, batch size and alpha of their papers. Older results are not reused."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """How to train and evaluate, given by the command that composes the two.

    Attributes:
        flags: Flags of `train` and of `evaluate`, by command.
        columns: From arguments of `train` to the keys of the columns it would read, by kind. Trains nothing;
            raises DenseCLIError where a column is missing.
        train: Arguments of `train` -> its JSON.
        evaluate: Arguments of `evaluate` -> its JSON.
    """

    flags: Mapping[str, Collection[str]]
    columns: Callable[[Sequence[str]], Mapping[str, str]]
    train: Callable[[Sequence[str]], Mapping[str, Any]]
    evaluate: Callable[[Sequence[str]], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of one run.

    Attributes:
        name: Name of the run's folder, or of a model that was evaluated without training.
        settings: Values of the grid's flags; empty for a model.
        figures: Figures by heading.
        random_weights: Whether the weights began as random ones.
        measured: Data, number of photos and categories of the figures; empty if they are not known.
        error: Why there are no figures; empty otherwise.
    """

    name: str
    settings: Mapping[str, Value] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    random_weights: bool = False
    measured: str = ""
    error: str = ""


def check(spec: Spec, runner: Runner) -> dict[str, Mapping[str, str]]:
    """Finds the columns that each cell reads.

    Returns:
        The keys of each cell's columns by kind, by name of the cell.

    Raises:
        DenseCLIError: Columns are missing. One error names them all, with the commands that build
            them.
    """
    found: dict[str, Mapping[str, str]] = {}
    messages: dict[str, None] = {}
    hints: dict[str, None] = {}
    commands: dict[str, None] = {}
    for cell in cells(spec):
        try:
            found[cell.name] = runner.columns(cell.arguments)
        except DenseCLIError as error:
            messages[str(error)] = hints[error.hint] = None
            commands |= dict.fromkeys(error.commands)
    if messages:
        raise DenseCLIError(" ".join(messages), hint=" ".join(hints), commands=commands)
    return found


def run_all(spec: Spec, folder: Path, runner: Runner, *, canvas: int, resume: Resume) -> list[RunResult]:
    """Evaluates the models of `spec.beside`, then trains and evaluates every cell.

    Prints each result on standard error as soon as it is known.

    Args:
        spec: The ablation.
        folder: Folder of the ablation; each run has a folder in it.
        runner: Trains and evaluates.
        canvas: Side of the store's canvas in pixels.
        resume: See `run_cell`.

    Raises:
        DenseCLIError: See `check`; raised before the first run.
        Interrupted, OtherRun: See `run_cell`.
    """
    columns = check(spec, runner)
    steps: list[Callable[[], RunResult]] = [
        *(
            partial(measure_model, spec, name, folder, runner, canvas=canvas, resume=resume)
            for name in spec.beside
        ),
        *(partial(run_cell, spec, c, columns[c.name], folder, runner, resume=resume) for c in cells(spec)),
    ]
    results = []
    for number, step in enumerate(steps, start=1):
        result = step()
        shown = (each for each in result.figures.items() if "top-5" not in each[0])
        figures = ", ".join(f"{name} {value:.1f}" for name, value in shown)
        # Errors have a bounded length, and their last words are the hint.
        told = result.error or plain(figures, CELL_LIMIT)
        click.echo(f"{number}/{len(steps)} {plain(result.name, CELL_LIMIT)}: {told}", err=True)
        results.append(result)
    return results


def run_cell(
    spec: Spec, cell: Cell, columns: Mapping[str, str], folder: Path, runner: Runner, *, resume: Resume
) -> RunResult:
    """Trains and evaluates a cell in FOLDER/NAME, or reads its recorded result.

    Args:
        spec: The ablation.
        cell: The run.
        columns: Keys of the columns that it reads, by kind.
        folder: Folder of the ablation.
        runner: Trains and evaluates.
        resume: As in `train`; with "interrupted" a finished cell is not run again.

    Returns:
        The figures, or the error that the run failed with.

    Raises:
        Interrupted: A signal stopped the run; the same command continues it.
        OtherRun: The folder has a run of other settings, or any with `resume` "never". The reports there are
            of its ablation, and stay.
    """
    run = folder / cell.name
    measure = arguments(spec.evaluate)
    asked = {"train": list(cell.arguments), "evaluate": measure, "columns": dict(columns)}
    if resume == "interrupted" and (known := _recorded(run / RECORD, asked)):
        return RunResult(name=cell.name, settings=cell.settings, **figures_of(known))
    try:
        trained = runner.train([*cell.arguments, "--run", str(run), "--resume", resume])
        # One that came in the last step ends the ablation too, although the cell is trained.
        if trained["signal"]:
            name = trained["signal"].name
            hint = "Run the same command to continue."
            raise Interrupted(trained["signal"], f"{name} stopped {run}.", hint=hint)
        result = _measure(runner, {**spec.evaluate, "run": str(run)})
    except Interrupted:
        raise
    except OtherRun as error:
        hint = f"Choose another --run than {folder}, or --resume overwrite, which trains all its runs anew."
        raise OtherRun(str(error), hint=hint) from None
    except Exception as error:  # a run that fails, say for lack of memory, must not end the others
        return RunResult(name=cell.name, settings=cell.settings, error=_sentence(error))
    _record(run / RECORD, asked, result)
    return RunResult(name=cell.name, settings=cell.settings, **figures_of(result))


def measure_model(
    spec: Spec, name: str, folder: Path, runner: Runner, *, canvas: int, resume: Resume
) -> RunResult:
    """Evaluates a model without training, on the store's canvas or that of the spec; see `run_cell`."""
    given = spec.train.get("weights", [])
    weights = [w for w in (given if isinstance(given, list) else [given]) if str(w).startswith(f"{name}=")]
    flags = {"canvas": canvas, **spec.evaluate, "student": name, "weights": weights}
    asked = {"evaluate": arguments(flags)}
    record = folder / f"{name}.json"
    result = _recorded(record, asked) if resume == "interrupted" else None
    if result is None:
        try:
            result = _measure(runner, flags)
        except Exception as error:  # as in `run_cell`
            return RunResult(name=name, error=_sentence(error))
        _record(record, asked, result)
    return RunResult(name=name, **figures_of(result))


def recorded(spec: Spec, folder: Path) -> list[RunResult]:
    """What an ablation has measured so far, without running anything.

    Args:
        spec: The ablation, with the store of its runs.
        folder: Folder of the ablation.

    Returns:
        The results of the models and runs in the spec's order; those without a record of the same training
        have an error.
    """

    def result(path: Path, run: Cell | None = None) -> dict[str, Any]:
        found = _read(path)
        same = found and (run is None or found["asked"]["train"] == list(run.arguments))
        return figures_of(found["result"]) if found and same else {"error": "It has not been run yet."}

    models = [RunResult(name=name, **result(folder / f"{name}.json")) for name in spec.beside]
    runs = [
        RunResult(name=cell.name, settings=cell.settings, **result(folder / cell.name / RECORD, cell))
        for cell in cells(spec)
    ]
    return [*models, *runs]


def photos_seen(run: Path) -> tuple[Mapping[str, str], int]:
    """The keys of the columns that a finished run has read, by kind, and how many photos it has seen."""
    config = read_document(
        run / "config.json", _RunConfig, noun="The run's configuration", hint=f"Run {run.name} again."
    )
    return config["columns"], config["total_steps"] * config["samples_per_step"]


def _measure(runner: Runner, flags: Mapping[str, Value]) -> dict[str, Any]:
    """The JSON of `evaluate`; that of several tasks is merged, the first task's entries first."""
    results = [runner.evaluate(words) for words in evaluations(flags)]
    return {
        name: {k: v for result in reversed(results) for k, v in result[name].items()} for name in results[0]
    }


class _RunConfig(TypedDict):
    columns: dict[str, str]
    total_steps: int
    samples_per_step: int


class _Record(TypedDict):
    version: NotRequired[int]
    asked: dict[str, Any]
    result: dict[str, Any]


def _recorded(path: Path, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The recorded result, if it was recorded for exactly these arguments."""
    found = _read(path)
    return found["result"] if found and found["asked"] == asked else None


def _read(path: Path) -> _Record | None:
    """A record of this version."""
    hint = "Delete it: the run is measured again."
    try:
        found: _Record = read_document(path, _Record, noun="The record", hint=hint)
    except FileNotFoundError:
        return None
    return found if found.get("version") == VERSION else None


def _record(path: Path, asked: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    fs.write_atomic(
        str(path), json.dumps({"version": VERSION, "asked": asked, "result": result}, indent=1).encode()
    )


def figures_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What `RunResult` takes from the JSON of `evaluate`: figures by heading, and on what they are."""
    first = next(iter(result.values()))
    named = {heading: first.get(metric.field) for heading, metric in METRICS.items()}
    about = first.get("measured") or {}
    of = [about.get("data"), f"{about.get('photos')} photos", f"categories {about.get('categories')}"]
    return {
        "figures": {heading: value for heading, value in named.items() if value is not None},
        "random_weights": first["random_weights"],
        "measured": ", ".join(map(str, of)) if about else "",
    }


def _sentence(error: Exception) -> str:
    if isinstance(error, DenseCLIError):
        return " ".join([str(error), *error.advice()])
    return plain(f"{type(error).__name__}: {error}", 800)
