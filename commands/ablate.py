"""The command `ablate`: trains and evaluates a grid of settings."""

import io
import json
import shlex
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from densecli.commands.command import Command, command
from densecli.commands.evaluate import evaluate
from densecli.commands.options import Options
from densecli.commands.results import Ablation, Commands, Result
from densecli.commands.train import run_training, train, train_config
from densecli.core.lock import FolderLock
from densecli.core.settings import changed, setting
from densecli.shards.config import DryRunSettings, StoreSettings
from densecli.train.trainer_config import Resume, TrainerConfig

if TYPE_CHECKING:
    from densecli.ablation.runs import Runner


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
    from densecli.ablation.runs import check, photos_seen, run_all
    from densecli.ablation.spec import cells, evaluations, find_spec, load_spec, measured_on, shipped
    from densecli.ablation.teacher_cost import teacher_costs
    from densecli.shards.datasets import defaults_for, function_of
    from densecli.shards.parted_store import open_store

    if options.get("list") or "spec" not in options.given:
        known = {name: str(path) for name, path in shipped().items()}
        options.say("\n".join(f"{name:24} {path}" for name, path in known.items()), known)
        return 0
    config = options.make(AblateSettings, store=options.store)
    runner = make_runner()
    store = open_store(config.store)
    path = find_spec(str(config.spec), store.dataset["name"])
    folder = Path(config.run or f"runs/ablate-{path.stem}")
    spec = load_spec(path, runner.flags)
    spec = replace(spec, train={**spec.train, "store": store.root})
    dataset = defaults_for(store.dataset["name"])
    annotated = dataset.annotated if "data" not in spec.evaluate else ""
    if annotated:
        spec = measured_on(spec, folder / "data", dataset)
    for words in evaluations(spec.evaluate):
        evaluate.parse(words)
    if config.dry_run:
        check(spec, runner)
        lines = [f"densecli train {shlex.join(c.arguments)} --run {folder / c.name}" for c in cells(spec)]
        options.say("\n".join(lines), {"commands": lines})
        return 0
    with FolderLock(folder, "The ablation", "--run"):
        if annotated:
            where = spec.evaluate
            function_of(annotated)(folder / "data", split=where["split"], count=where["limit"])
        results = run_all(spec, folder, runner, canvas=store.canvas, resume=config.resume)
        finished = [result for result in results if result.settings and not result.error]
        costs = teacher_costs(store, [photos_seen(folder / result.name) for result in finished])
        page = write_report(folder, spec, results, costs)
    value = {
        "spec": str(path),
        "runs": [asdict(result) for result in results],
        "teacher_costs": [asdict(cost) for cost in costs],
        "page": str(page),
    }
    options.say(f"{summary(results, costs, title=spec.title)}\n\nTables and charts: {page}", value)
    return 1 if any(result.error for result in results) else 0


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
