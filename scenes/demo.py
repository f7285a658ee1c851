"""The command `demo`: builds shards of generated scenes, trains a student, evaluates before and after."""

import os
from pathlib import Path
from typing import Any

import click

from densecli.commands.flags import flags, write_json


@click.command()
@click.option("--scenes", type=click.IntRange(1), default=480, show_default=True, help="Scenes to train on.")
@click.option(
    "--test-scenes", type=click.IntRange(1), default=300, show_default=True, help="Scenes to test on."
)
@click.option("--max-steps", type=click.IntRange(1), default=300, show_default=True, help="Training steps.")
@click.option(
    "--pretrain",
    is_flag=True,
    help="First train the generated world's own models again (an hour on 2 cores), but those in RUN/weights.",
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
    """Build shards of the generated world, train a student on them, evaluate before and after.

    \b
    densecli demo --seed 1 --json demo.json
    """
    from densecli.evaluation.classify import ClassifyConfig
    from densecli.evaluation.model_under_test import ModelUnderTest, evaluate_regions
    from densecli.evaluation.report import comparison
    from densecli.pipeline.build_shards import BuildConfig
    from densecli.pipeline.build_shards import build_shards as build
    from densecli.scenes.coco import write_coco
    from densecli.scenes.demo_page import write_demo
    from densecli.scenes.vocabulary import IMAGE_SIZE
    from densecli.shards.store import Store
    from densecli.train.distillation import TrainConfig
    from densecli.train.distillation import train as fit

    folder = Path(run or ("runs/pretrain" if pretrain else "runs/demo"))
    student, pvlm = None, {}
    if pretrain:
        import torch

        from densecli.scenes.pretrain import PretrainConfig, pretrain_models, tune_pvlm

        # torch uses one thread per core; these small layers gain from hyperthreads as well.
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
    # The store may hold labels of other P-VLMs too.
    labels = "{name}-{id}".format(**built["columns"][-1])
    click.echo(f"2/4 The student before training is evaluated on {test_scenes} other scenes.")
    write_coco(folder / "data", seed=0, split="test", count=test_scenes)
    began = ModelUnderTest(model="scenes-s", weights=student)
    before = evaluate_regions(began, **where)
    click.echo("3/4 The student trains on the shards.")
    settings = TrainConfig(
        store=store,
        run=str(folder / f"train-{seed}-{scenes}"),
        student="scenes-s",
        weights=student,
        teachers=(labels,),
        max_steps=max_steps,
        batch_size=24,
        lr=3e-4,
        # Chosen on the split val: DenseVLM's own (0.3, and no stuff at all) halve Boxes at this rate.
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

    subjects, results = {"before": began, "after": ended}, {"before": before, "after": after}
    write_demo(folder, Store.open(store), labels, settings.theta, subjects, results, where)
    write_json(json_file, {"before": before.to_dict(), "after": after.to_dict()})
