"""The command `demo`: builds shards of generated scenes, trains a student, evaluates it before and after."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.core.settings import setting
from densecli.shards.config import DeviceSettings


@dataclass(frozen=True, kw_only=True)
class DemoSettings(DeviceSettings):
    """The settings of demo."""

    scenes: int = setting(480, help="Scenes to train on.", group="data", min=1, metavar="N")
    test_scenes: int = setting(300, help="Scenes to test on.", group="data", min=1, metavar="N")
    max_steps: int = setting(300, help="Steps of the training.", group="optimisation", min=1, metavar="N")
    pretrain: bool = setting(
        False,
        help="First trains the generated world's models that RUN/weights lacks: an hour on 2 cores.",
        group="run",
    )
    run: str | None = setting(
        None,
        help="Folder for everything that the demo writes.",
        group="run",
        metavar="DIR",
        default_text="runs/demo; with --pretrain runs/pretrain",
        path=True,
    )
    seed: int = setting(0, help="Seed of the scenes and of the training.", group="run", metavar="N")


@command(DemoSettings)
def demo(options: Options) -> None:
    """Run the whole chain on generated scenes: build shards, train, evaluate before and after.

    \b
    densecli demo --seed 1 --json demo.json
    """
    from densecli.evaluation.config import ClassifyConfig
    from densecli.evaluation.model_under_test import ModelUnderTest, evaluate_regions
    from densecli.evaluation.report import comparison
    from densecli.pipeline.build_shards import BuildConfig
    from densecli.pipeline.build_shards import build_shards as build
    from densecli.scenes.coco import write_coco
    from densecli.scenes.demo_page import write_demo
    from densecli.scenes.vocabulary import IMAGE_SIZE
    from densecli.shards.store import Store
    from densecli.train.config import TrainConfig
    from densecli.train.distillation import train as fit

    config = options.make(DemoSettings)
    scenes, seed, device = config.scenes, config.seed, config.device
    folder = Path(config.run or ("runs/pretrain" if config.pretrain else "runs/demo"))
    student, pvlm = None, {}
    if config.pretrain:
        import torch

        from densecli.scenes.pretrain import PretrainConfig, pretrain_models, tune_pvlm

        # torch uses one thread for each core; these small layers profit from hyperthreads too.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        weights = folder / "weights"
        pretrain_models(PretrainConfig(seed=seed), weights)
        tune_pvlm(weights, lambda **asked: fit(TrainConfig(**asked)), seed=seed, device=device)
        student = str(weights / "scenes-s.safetensors")
        pvlm = {"scenes-pvlm": str(weights / "scenes-pvlm.safetensors")}

    where: dict[str, Any] = {
        "data": str(folder / "data"),
        "split": "test",
        "categories": "scenes",
        "config": ClassifyConfig(canvas=IMAGE_SIZE, batch_size=50),
        "device": device,
    }

    click.echo(f"1/4 The P-VLM labels {scenes} scenes, once.")
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
    # The store may hold the labels of other P-VLMs too.
    labels = "{name}-{id}".format(**built["columns"][-1])
    click.echo(f"2/4 The student before training is evaluated on {config.test_scenes} other scenes.")
    write_coco(folder / "data", seed=0, split="test", count=config.test_scenes)
    began = ModelUnderTest(model="scenes-s", weights=student)
    before = evaluate_regions(began, **where)
    click.echo("3/4 The student trains on the shards.")
    settings = TrainConfig(
        store=store,
        run=str(folder / f"train-{seed}-{scenes}"),
        student="scenes-s",
        weights=student,
        teachers=(labels,),
        max_steps=config.max_steps,
        batch_size=24,
        lr=3e-4,
        # Chosen on the split val: DenseVLM's values (theta 0.3, beta 0) halve Boxes at this learning rate.
        theta=0.8,
        beta=0.3,
        seed=seed,
        device=device,
        resume="overwrite",
    )
    fit(settings)
    click.echo("4/4 The student after training is evaluated.")
    ended = ModelUnderTest.of_run(settings.run)
    after = evaluate_regions(ended, **where)
    click.echo(f"\n{comparison(before, after).text()}\n")

    models_under_test, results = {"before": began, "after": ended}, {"before": before, "after": after}
    write_demo(folder, Store.open(store), labels, settings.theta, models_under_test, results, where)
    options.write({"before": before.to_dict(), "after": after.to_dict()})
