"""The command `ablate`: trains and evaluates a grid of settings."""

import io
import json
import shlex
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict

from densecli.commands.command import Command, command
from densecli.commands.evaluate import evaluate
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.commands.train import run_training, train, train_config
from densecli.core.lock import FolderLock
from densecli.core.settings import changed, setting
from densecli.shards.config import DryRunSettings, StoreSettings
from densecli.train.trainer_config import Resume, TrainerConfig

if TYPE_CHECKING:
    from densecli.ablation.runs import Runner, RunResult
    from densecli.ablation.spec import Spec
    from densecli.ablation.teacher_cost import TeacherCost
    from densecli.ablation.verdict import Verdict
    from densecli.shards.store import Store


@dataclass(frozen=True, kw_only=True)
class AblateSettings(StoreSettings, DryRunSettings):
    """The settings of ablate."""

    spec: str | None = setting(
        None,
        help="A .toml file, or the name of a spec that comes with densecli.",
        group="run",
        argument=True,
        default_text="lists those specs",
        path=True,
    )
    list: bool = setting(False, help="Lists the specs that come with densecli.", group="run")
    run: str | None = setting(
        None,
        help="Folder of the runs.",
        group="run",
        metavar="DIR",
        default_text="runs/ablate-SPEC",
        path=True,
    )
    resume: Resume = changed(
        TrainerConfig, "resume", help="What to do with existing runs: continue, refuse or replace them."
    )


class AblationRun(TypedDict):
    """A run of the grid, or a model that was measured without one."""

    name: Annotated[str, "Folder of the run, or the model."]
    settings: Annotated[dict[str, Any], "The grid's settings; empty for a model."]
    figures: Annotated[dict[str, float], "Figures by heading."]
    random_weights: Annotated[bool, "Whether weights began as random ones."]
    measured: Annotated[str, "Data, photos and categories of the figures."]
    error: Annotated[str, "Why there are no figures; empty otherwise."]


class GridResult(TypedDict):
    """A grid of runs."""

    spec: Annotated[str, "The file of the grid."]
    runs: Annotated[list[AblationRun], "Each run."]
    teacher_costs: Annotated[
        list[dict[str, Any]], "Each column: seconds stored, seconds live for a photo, photos seen."
    ]
    page: Annotated[str, "The page of tables and charts."]


class Ablation(GridResult):
    """A grid of runs, compared."""

    verdicts: Annotated[list[dict[str, Any]], "What adding each factor gives, with a sentence."]


class Commands(TypedDict):
    """Commands that would be run."""

    commands: Annotated[list[str], "A command line each."]


@command(
    AblateSettings,
    results=(
        Result(fields=Ablation),
        Result(fields=Commands, when="--dry-run"),
        Result(fields=str, when="without SPEC", by="spec"),
    ),
)
def ablate(options: Options) -> int:
    """Train and evaluate a grid of settings on one store: a table over seeds, and the teachers' cost.

    Finished runs are not run again. If a run fails, the others still run, and the exit code is 1.

    \b
    densecli ablate --list
    densecli ablate decoupling --store stores/coco-512
    """
    from densecli.ablation.report import summary, write_report
    from densecli.ablation.spec import find_spec, load_spec, shipped, shipped_text
    from densecli.shards.parted_store import open_store

    if options.get("list") or "spec" not in options.given:
        known = {name: str(path) for name, path in shipped().items()}
        options.say(shipped_text(), known)
        return 0
    config = options.make(AblateSettings, store=options.store)
    runner = make_runner()
    store = open_store(config.store)
    path = find_spec(str(config.spec), store.dataset["name"])
    folder = Path(config.run or f"runs/ablate-{path.stem}")
    spec = load_spec(path, runner.flags)
    spec = replace(spec, train={**spec.train, "store": store.root})
    done = run_grid(options, spec, store, folder, runner, resume=config.resume, dry_run=config.dry_run)
    if done is None:
        return 0
    page = write_report(folder, done.spec, done.results, done.costs, done.verdicts)
    value = {
        "spec": str(path),
        "runs": [asdict(result) for result in done.results],
        "verdicts": [{**asdict(each), "sentence": each.sentence} for each in done.verdicts],
        "teacher_costs": [asdict(cost) for cost in done.costs],
        "page": str(page),
    }
    text = summary(done.results, done.costs, done.verdicts, title=spec.title)
    options.say(f"{text}\n\nTables and charts: {page}", value)
    return 1 if any(result.error for result in done.results) else 0


class Grid(NamedTuple):
    """The runs of an ablation.

    Attributes:
        spec: The ablation, with the photos that it was measured on.
        results: The runs.
        costs: The cost of their teachers.
        verdicts: What adding each factor gives.
    """

    spec: "Spec"
    results: "list[RunResult]"
    costs: "list[TeacherCost]"
    verdicts: "list[Verdict]"


def run_grid(
    options: Options,
    spec: "Spec",
    store: "Store",
    folder: Path,
    runner: "Runner",
    *,
    resume: Resume,
    dry_run: bool,
) -> Grid | None:
    """Runs an ablation in its folder, or prints its commands and returns None in a dry run.

    Raises:
        DenseCLIError: See `run_all`; or another process writes the folder.
        Interrupted: See `run_all`.
    """
    from densecli.ablation.runs import check, photos_seen, run_all
    from densecli.ablation.spec import cells, evaluations, measured_on
    from densecli.ablation.teacher_cost import column_bills, teacher_costs
    from densecli.ablation.verdict import verdicts
    from densecli.shards.datasets import defaults_for, function_of

    dataset = defaults_for(store.dataset["name"])
    annotated = dataset.annotated if "data" not in spec.evaluate else ""
    if annotated:
        spec = measured_on(spec, folder / "data", dataset)
    for words in evaluations(spec.evaluate):
        evaluate.parse(words)
    if dry_run:
        check(spec, runner)
        lines = [f"densecli train {shlex.join(c.arguments)} --run {folder / c.name}" for c in cells(spec)]
        options.say("\n".join(lines), {"commands": lines})
        return None
    with FolderLock(folder, "The ablation", "--run"):
        if annotated:
            where = spec.evaluate
            function_of(annotated)(folder / "data", split=where["split"], count=where["limit"])
        results = run_all(spec, folder, runner, canvas=store.canvas, resume=resume)
    seen = {r.name: photos_seen(folder / r.name) for r in results if r.settings and not r.error}
    columns = {name: keys for name, (keys, _) in seen.items()}
    bills = column_bills(store, (key for keys in columns.values() for key in keys.values()))
    return Grid(spec, results, teacher_costs(store, seen.values()), verdicts(results, columns, bills))


def flags_of(command: Command) -> set[str]:
    """The options of a command without their dashes."""
    return {each.option for each in command.settings.values()}


def make_runner() -> "Runner":
    """Trains and evaluates the runs of an ablation in this process."""
    from densecli.ablation.runs import Runner
    from densecli.shards.parted_store import open_store
    from densecli.train.distillation import columns_read

    def columns(words: Sequence[str]) -> dict[str, str]:
        config = train_config(train.parse(words))
        found = columns_read(open_store(config.store), config)[1]
        return {kind: column.key for kind, column in found.items()}

    def measure(words: Sequence[str]) -> Any:
        with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            file = Path(folder) / "result.json"
            # Not evaluate.main, to which Ctrl-C is an error like others.
            with evaluate.make_context("evaluate", [*words, "--json", str(file)]) as context:
                evaluate.invoke(context)
            return json.loads(file.read_text())

    return Runner(
        flags={"train": flags_of(train), "evaluate": flags_of(evaluate)},
        columns=columns,
        train=lambda words: run_training(train.parse(words)),
        evaluate=measure,
    )
