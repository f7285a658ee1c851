"""The command line: verbs by name, imported when they are called."""

import json
import os
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
    "evaluate": "evaluation.verbs:evaluate",
}


class Verbs(click.Group):
    """A group whose failures are one sentence and a hint: exit 1. Usage errors are click's: exit 2."""

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
            ctx.exit(1)


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
    "--pretrain", is_flag=True, help="Instead, train the world's own CLIPs again: an hour of 2 cores."
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
    folder = Path(run or "runs/demo")
    if pretrain:
        import torch

        from pipeline.scenes.pretrain import PretrainConfig
        from pipeline.scenes.pretrain import pretrain as pretrain_clips

        # torch counts cores; these small layers gain from their hyperthreads as well.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        record = pretrain_clips(PretrainConfig(seed=seed), folder / "weights")
        write_json(json_file, record)
        click.echo(f"{json.dumps(record['models'], indent=1)}\nThe weights are in {folder / 'weights'}.")
        return

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
    settings = TrainConfig(
        store=str(folder / f"store-{seed}-{scenes}"),
        run=str(folder / f"train-{seed}-{scenes}"),
        student="scenes-s",
        max_steps=max_steps,
        batch_size=24,
        lr=3e-4,
        # This P-VLM is surer of itself than a real one, also where it is wrong: chosen on val scenes.
        theta=0.8,
        seed=seed,
        device=device,
        resume="overwrite",
    )
    build(
        BuildConfig(
            dataset="scenes",
            split="train",
            limit=scenes,
            seed=seed,
            store=settings.store,
            teachers=("scenes-pvlm",),
            device=device,
        )
    )
    click.echo(f"2/4 The student before, on {test_scenes} other scenes.")
    write_coco(folder / "data", seed=0, split="test", count=test_scenes)
    before = measure(Subject(model="scenes-s"))
    click.echo("3/4 The student learns from the shards.")
    fit(settings)
    click.echo("4/4 The student after.")
    after = measure(Subject.of_run(settings.run))
    click.echo(f"\n{comparison(before, after)}\n")

    opened = Store.open(settings.store)
    labels = opened.find("targets", "scenes-pvlm")
    picture = folder / "preview.png"
    contact_sheet(retrieved_views(opened, labels, view=6, limit=6)).save(picture)
    click.echo(f"Grid cells and retrieved labels: {picture}")
    write_json(json_file, {"before": before.to_dict(), "after": after.to_dict()})


if __name__ == "__main__":
    main()
