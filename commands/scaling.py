"""The command `scaling`: trains on nested shares of the photos, and says whether more would pay."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from densecli.commands.ablate import Commands, GridResult, make_runner, run_grid
from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.commands.train import train, train_config
from densecli.core.settings import changed, setting
from densecli.shards.config import DryRunSettings, StoreSettings
from densecli.shards.store import Store
from densecli.train.trainer_config import Resume, TrainerConfig, photos_within


@dataclass(frozen=True, kw_only=True)
class ScalingSettings(StoreSettings, DryRunSettings):
    """The settings of scaling."""

    spec: str = setting(
        "scaling",
        help="How to train and evaluate: a .toml file as for ablate, or the name of a spec that comes with "
        "densecli.",
        group="run",
        argument=True,
        path=True,
    )
    run: str = setting("runs/scaling", help="Folder of the runs.", group="run", metavar="DIR", path=True)
    shares: str | None = setting(
        None,
        help="Shares of the photos to train on, such as 1/16,1/8,1/4,1/2,1; each lies inside the next.",
        group="data",
        metavar="A,B,...",
        default_text="those of the spec",
    )
    seeds: str | None = setting(
        None,
        help="Seeds of the trainings, such as 0,1,2; each also draws its own photos.",
        group="run",
        metavar="N,M,...",
        default_text="those of the spec",
    )
    same: Literal["steps", "epochs"] = setting(
        "steps",
        help="What trainings on all shares have alike. steps: tells whether more data pays at the same "
        "training time. epochs: tells what a smaller store gives where each photo is seen as often.",
        group="optimisation",
    )
    resume: Resume = changed(
        TrainerConfig, "resume", help="What to do with existing runs: continue, refuse or replace them."
    )


class Scaling(GridResult):
    """A grid of runs over growing shares of the photos."""

    same: Annotated[str, "What trainings on all shares have alike: steps or epochs."]
    photos: Annotated[list[dict[str, Any]], "Each share and seed, with its number of photos."]
    curves: Annotated[list[dict[str, Any]], "A curve of each figure over the photos."]


@command(ScalingSettings, results=(Result(fields=Scaling), Result(fields=Commands, when="--dry-run")))
def scaling(options: Options) -> int:
    """Train on growing shares of a store's photos: does more data pay, and what would ten times as much give?

    Needs no teacher. Finished runs are not run again. If a run fails, the others still run, and the exit code
    is 1.

    \b
    densecli scaling --store stores/coco-512
    densecli scaling mine.toml --store stores/coco-512 --shares 1/32,1/16,1/8,1/4,1/2,1 --same epochs
    """
    from densecli.ablation.report import measured_headings, write_report
    from densecli.ablation.scaling import (
        SHARE,
        check_sizes,
        parse_seeds,
        parse_shares,
        scaling_curves,
        scaling_section,
        scaling_spec,
        scaling_text,
    )
    from densecli.ablation.spec import arguments, find_spec, load_spec
    from densecli.shards.parted_store import open_store
    from densecli.shards.shard_table import ShardTable

    config = options.make(ScalingSettings, store=options.store)
    shares = parse_shares(config.shares) if config.shares is not None else None
    seeds = parse_seeds(config.seeds) if config.seeds is not None else None
    runner = make_runner()
    store = open_store(config.store)
    path = find_spec(config.spec, store.dataset["name"])
    spec = load_spec(path, runner.flags, grid_needed=False)
    spec = replace(spec, train={**spec.train, "store": store.root})
    training = train_config(train.parse(arguments(spec.train)))
    whole = int(ShardTable.of([store.images]).samples.sum())
    spec = scaling_spec(spec, shares=shares, seeds=seeds, length=length_of(training, config.same, whole))
    sizes = [(float(str(share)), int(str(seed))) for share in spec.grid[SHARE] for seed in spec.grid["seed"]]
    photos = dict(zip(sizes, photos_of(store, sizes), strict=True))
    check_sizes(photos, training.batch_size * training.accumulate)
    folder = Path(config.run)
    done = run_grid(options, spec, store, folder, runner, resume=config.resume, dry_run=config.dry_run)
    if done is None:
        return 0
    curves = scaling_curves(done.results, photos, measured_headings(done.results))
    first = [scaling_section(curves, config.same)]
    page = write_report(folder, done.spec, done.results, done.costs, first=first)
    value = {
        "spec": str(path),
        "same": config.same,
        "photos": [{"share": share, "seed": seed, "photos": n} for (share, seed), n in photos.items()],
        "runs": [asdict(result) for result in done.results],
        "curves": [curve.to_dict() for curve in curves],
        "teacher_costs": [asdict(cost) for cost in done.costs],
        "page": str(page),
    }
    options.say(f"{spec.title}\n\n{scaling_text(curves, config.same)}\n\nTables and charts: {page}", value)
    return 1 if any(result.error for result in done.results) else 0


def photos_of(store: Store, sizes: Sequence[tuple[float, int]]) -> list[int]:
    """The numbers of photos that trainings with these --photos-share and --seed read."""
    from densecli.shards.key_ranges import counts_within

    subsets = [photos_within(share, seed) for share, seed in sizes]
    return [int(count) for count in counts_within(store.images, subsets).sum(axis=1)]


def length_of(training: TrainerConfig, same: str, photos: int) -> dict[str, int]:
    """The length of every training, in steps or in epochs: that which the spec has for the whole store.

    Args:
        training: The training of the spec.
        same: steps or epochs.
        photos: Photos of the store.
    """
    step = training.batch_size * training.accumulate
    seen = training.seen_samples or training.epochs * photos
    steps = training.max_steps or max(1, math.ceil(seen / step))
    if same == "steps":
        return {"max-steps": steps}
    of_epochs = not training.max_steps and not training.seen_samples
    return {"epochs": training.epochs if of_epochs else max(1, round(steps * step / photos))}
