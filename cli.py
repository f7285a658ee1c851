"""The command line: verbs by name, imported when they are called."""

import os
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from shards.errors import DenseCLIError
from shards.flags import flags, write_json

# Where each verb is; those that need several packages are here.
VERBS: Mapping[str, str] = {
    "build-shards": "pipeline.verbs:build_shards",
    "relabel": "pipeline.verbs:relabel",
    "train": "train.verbs:train",
    "train-refiner": "train.verbs:train_refiner",
    "export": "train.verbs:export",
    "evaluate": "evaluation.verbs:evaluate",
    "plan": "pipeline.verbs:plan",
    "info": "shards.verbs:info",
    "lint": "shards.verbs:lint",
    "verify": "pipeline.verbs:verify",
    "preview": "evaluation.verbs:preview",
    "gc": "shards.verbs:gc",
}


class Verbs(click.Group):
    """A group whose failures are one sentence and a hint: exit 1, or 128 + the signal that was the cause.

    Usage errors are click's: exit 2.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return super().get_command(ctx, name)
        module, _, verb = VERBS[name].partition(":")
        return getattr(import_module(module), verb)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DenseCLIError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            if error.hint:
                click.echo(f"Hint: {error.hint}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Error: stopped.", err=True)
            ctx.exit(130)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="densecli")
def main(debug: bool) -> None:
    """Run vision-language teachers once, train dense students from their shards."""


@main.command()
@click.option("--scenes", type=click.IntRange(1), default=480, show_default=True, help="Scenes to train on.")
@click.option(
    "--test-scenes", type=click.IntRange(1), default=300, show_default=True, help="Scenes to test on."
)
@click.option("--max-steps", type=click.IntRange(1), default=300, show_default=True)
@click.option(
    "--pretrain",
    is_flag=True,
    help="Before, train the world's own models again: an hour of 2 cores. Those in RUN/weights are kept.",
)
@flags("run", "seed", "device", "json")
def demo(
    scenes: int,
    test_scenes: int,
    max_steps: int,
    pretrain: bool,
    run: str | None,
    seed: int,
    device: str,
    json_file: str | None,
) -> None:
    """The whole chain on the generated world: build shards, train, evaluate before and after.

    \b
    densecli demo --seed 1 --json demo.json
    """
    from evaluation.classify import ClassifyConfig
    from evaluation.preview import contact_sheet
    from evaluation.region import Subject, evaluate_regions
    from evaluation.report import comparison
    from evaluation.retrieved import retrieved_views
    from models.scenes import IMAGE_SIZE
    from pipeline.driver import BuildConfig
    from pipeline.driver import build_shards as build
    from pipeline.scenes.coco import write_coco
    from shards.store import Store
    from train.trainer import TrainConfig
    from train.trainer import train as fit

    folder = Path(run or ("runs/pretrain" if pretrain else "runs/demo"))
    student, pvlm = None, {}
    if pretrain:
        import torch

        from pipeline.scenes.pretrain import PretrainConfig, pretrain_models

        # torch counts cores; these small layers gain from their hyperthreads as well.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        weights = folder / "weights"
        pretrain_models(PretrainConfig(seed=seed), weights)
        tune_pvlm(weights, seed=seed, device=device)
        student = str(weights / "scenes-s.safetensors")
        pvlm = {"scenes-pvlm": str(weights / "scenes-pvlm.safetensors")}

    def measure(subject: Subject) -> Any:
        return evaluate_regions(
            subject,
            data=str(folder / "data"),
            split="test",
            categories="scenes",
            device=device,
            config=ClassifyConfig(canvas=IMAGE_SIZE, batch_size=50),
        )

    click.echo(f"1/4 The P-VLM reads {scenes} scenes, once.")
    store = str(folder / f"store-{seed}-{scenes}")
    built = build(
        BuildConfig(
            dataset="scenes",
            split="train",
            limit=scenes,
            seed=seed,
            store=store,
            teachers=("scenes-pvlm",),
            weights=pvlm,
            device=device,
        )
    )
    # Of several P-VLMs that the store may know, the one that just spoke.
    labels = "{name}-{id}".format(**built["columns"][-1])
    click.echo(f"2/4 The student before, on {test_scenes} other scenes.")
    write_coco(folder / "data", seed=0, split="test", count=test_scenes)
    before = measure(Subject(model="scenes-s", weights=student))
    click.echo("3/4 The student learns from the shards.")
    settings = TrainConfig(
        store=store,
        run=str(folder / f"train-{seed}-{scenes}"),
        student="scenes-s",
        weights=student,
        teachers=(labels,),
        max_steps=max_steps,
        batch_size=24,
        lr=3e-4,
        # Chosen on val scenes: DenseVLM's own (0.3, and Stuff left out altogether) halves Boxes at this rate.
        theta=0.8,
        beta=0.3,
        seed=seed,
        device=device,
        resume="overwrite",
    )
    fit(settings)
    click.echo("4/4 The student after.")
    after = measure(Subject.of_run(settings.run))
    click.echo(f"\n{comparison(before, after)}\n")

    opened = Store.open(store)
    picture = folder / "preview.png"
    views = retrieved_views(opened, opened.find("targets", labels), view=6, limit=6)
    contact_sheet(views).save(picture)
    click.echo(f"Grid cells and retrieved labels: {picture}")
    write_json(json_file, {"before": before.to_dict(), "after": after.to_dict()})


def tune_pvlm(weights: Path, *, seed: int, device: str, scenes: int = 2000, max_steps: int = 1000) -> None:
    """CLIPSelf as the product does it: what scenes-l says of crops, stored once, teaches its dense map.

    Reads scenes-l in the folder `weights`, writes scenes-pvlm beside it unless it is there.
    """
    from models.checkpoints import read_state_dict
    from pipeline.driver import BuildConfig, build_shards
    from pipeline.scenes.pretrain import record, save_half
    from train.trainer import TrainConfig, train

    tuned, clip = weights / "scenes-pvlm.safetensors", str(weights / "scenes-l.safetensors")
    if tuned.exists():
        return
    started = time.monotonic()
    build = BuildConfig(
        dataset="scenes",
        split="pretrain",
        limit=scenes,
        seed=seed,
        store=str(weights.with_name(f"crops-{seed}-{scenes}")),
        regions="grid-square",
        views=5,
        shard_size=250,
        workers=len(os.sched_getaffinity(0)),
        teachers=("crops-scenes-l",),
        weights={"scenes-l": clip},
        device=device,
    )
    crops = build_shards(build)["columns"][-1]
    result = train(
        TrainConfig(
            store=str(build.store),
            run=str(weights.with_name(f"clipself-{seed}-{scenes}")),
            student="scenes-l",
            weights=clip,
            method="clipself",
            teachers=("{name}-{id}".format(**crops),),
            max_steps=max_steps,
            batch_size=24,
            lr=6e-4,
            alpha=1.0,
            seed=seed,
            device=device,
            resume="overwrite",
        )
    )
    save_half(read_state_dict(result["export"]), tuned)
    row = {
        "trained": "CLIPSelf by build-shards and train, from scenes-l",
        "steps": result["step"],
        "loss": round(result["loss"], 4),
        "seconds": round(time.monotonic() - started),
    }
    record(weights, "scenes-pvlm", row, {"clipself": {"scenes": scenes, "max_steps": max_steps}})


if __name__ == "__main__":
    main()
