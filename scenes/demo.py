"""The command `demo`: DenseVLM's claim on generated scenes, from shards to accuracies."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Regions, Result
from densecli.core.errors import Interrupted
from densecli.core.progress import say
from densecli.core.settings import setting
from densecli.shards.config import DeviceSettings

if TYPE_CHECKING:
    from densecli.evaluation.model_under_test import ModelUnderTest
    from densecli.evaluation.region_counts import Classification

PVLM, STUDENT = "scenes-pvlm", "scenes-s-clipself"
# Theta is chosen; docs/ablations.md says how, and what else was tried. The other settings are DenseVLM's own.
LR, THETA = 3e-5, 0.8


@dataclass(frozen=True, kw_only=True)
class DemoSettings(DeviceSettings):
    """The settings of demo."""

    scenes: int = setting(480, help="Scenes to train on.", group="data", min=1, metavar="N")
    test_scenes: int = setting(300, help="Scenes to test on.", group="data", min=1, metavar="N")
    max_steps: int = setting(200, help="Steps of each training.", group="optimisation", min=1, metavar="N")
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


@command(DemoSettings, results=(Result(fields=Regions, by="model: teacher, before, undecoupled, after"),))
def demo(options: Options) -> None:
    """Run the whole chain on generated scenes: a P-VLM that calls much stuff a thing labels them once, and a
    student learns from the labels, without decoupling and as DenseVLM.

    \b
    densecli demo --seed 1 --json demo.json
    """
    from densecli.evaluation.config import ClassifyConfig
    from densecli.evaluation.model_under_test import ModelUnderTest
    from densecli.evaluation.report import regions_table
    from densecli.pipeline.build_shards import BuildConfig
    from densecli.pipeline.build_shards import build_shards as build
    from densecli.scenes.coco import write_coco
    from densecli.scenes.demo_page import write_demo
    from densecli.scenes.processes import Processes
    from densecli.scenes.vocabulary import IMAGE_SIZE
    from densecli.shards.store import Store

    config = options.make(DemoSettings)
    scenes, seed, device = config.scenes, config.seed, config.device
    folder = Path(config.run or ("runs/pretrain" if config.pretrain else "runs/demo"))
    weights: dict[str, str] = {}
    if config.pretrain:
        import torch

        from densecli.scenes.pretrain import PretrainConfig, pretrain_models, tune_clips
        from densecli.train.config import TrainConfig
        from densecli.train.distillation import train as fit

        # torch uses one thread for each core; these small layers profit from hyperthreads too.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        made, how = folder / "weights", PretrainConfig(seed=seed)
        pretrain_models(how, made)
        tune_clips(how, made, lambda **asked: fit(TrainConfig(**asked)), device=device)
        weights = {name: str(made / f"{name}.safetensors") for name in (PVLM, STUDENT)}

    data = folder / "data"
    where: dict[str, Any] = {
        "data": str(data),
        "split": "test",
        "categories": "scenes",
        "config": ClassifyConfig(canvas=IMAGE_SIZE, batch_size=50),
        "device": device,
    }
    with Processes(2) as processes:
        say(f"1/4 The P-VLM labels {scenes} scenes, once.")
        store = str(folder / f"store-{seed}-{scenes}")
        built = build(
            BuildConfig(
                dataset="scenes",
                split="train",
                limit=scenes,
                seed=seed,
                store=store,
                teachers=(PVLM,),
                weights={PVLM: weights[PVLM]} if weights else {},
                device=device,
            )
        )
        # The store may hold the labels of other P-VLMs too.
        labels = "{name}-{id}".format(**built["columns"][-1])
        write_coco(data, seed=0, split="test", count=config.test_scenes)
        settings: dict[str, Any] = {
            "store": store,
            "student": STUDENT,
            "weights": weights.get(STUDENT),
            "teachers": (labels,),
            "max_steps": config.max_steps,
            "batch_size": 24,
            "lr": LR,
            "theta": THETA,
            "seed": seed,
            "device": device,
            "resume": "overwrite",
        }
        undecoupled, after = processes.run(
            [
                partial(trained, str(folder / f"undecoupled-{seed}-{scenes}"), decoupling="none", **settings),
                partial(trained, str(folder / f"train-{seed}-{scenes}"), **settings),
            ],
            [
                "2/4 The student trains on the labels, each region told apart from all categories.",
                "3/4 The student trains on the labels, things told apart from things alone: DenseVLM.",
            ],
        )
        say(f"4/4 All of them are evaluated on {config.test_scenes} other scenes.")
        models_under_test = {
            "teacher": ModelUnderTest(model=PVLM, weights=weights.get(PVLM)),
            "before": ModelUnderTest(model=STUDENT, weights=weights.get(STUDENT)),
            "undecoupled": undecoupled,
            "after": after,
        }
        halves = [
            {name: models_under_test[name] for name in half}
            for half in (("teacher", "before"), ("undecoupled", "after"))
        ]
        results: dict[str, Classification] = {}
        for part in processes.run([partial(evaluated, half, where) for half in halves]):
            results |= part
    pages = write_demo(folder, Store.open(store), labels, THETA, models_under_test, results, where)
    text = "\n".join(["", regions_table(results).text(), "", *pages])
    options.say(text, {name: result.to_dict() for name, result in results.items()})


def trained(run: str, **settings: Any) -> "ModelUnderTest":
    """Trains in a folder. Returns the student."""
    from densecli.evaluation.model_under_test import ModelUnderTest
    from densecli.train.config import TrainConfig
    from densecli.train.distillation import train as fit

    stopped = fit(TrainConfig(run=run, **settings))["signal"]
    if stopped:
        raise Interrupted(stopped, f"{stopped.name} stopped {run}.", hint="The same command trains again.")
    return ModelUnderTest.of_run(run)


def evaluated(
    models: Mapping[str, "ModelUnderTest"], where: Mapping[str, Any]
) -> "dict[str, Classification]":
    """Measures models."""
    from densecli.evaluation.model_under_test import evaluate_regions

    return {name: evaluate_regions(each, **where) for name, each in models.items()}
