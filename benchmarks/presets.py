"""Every preset trained from one store of the generated world, as a markdown table.

    python benchmarks/presets.py                           # on the test scenes
    python benchmarks/presets.py --rows decoupling --split val --seeds 0

The columns are added to the store one after another; the digest of every file that was there before is
compared after each addition. A run that is finished is not trained again. Seeds change the order of the
scenes alone.
"""

import argparse
import hashlib
import json
import os
import statistics
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from densecli.evaluation.classify import ClassifyConfig
from densecli.evaluation.model_under_test import ModelUnderTest, evaluate_regions
from densecli.pipeline.build_shards import BuildConfig, build_shards
from densecli.scenes.coco import write_coco
from densecli.scenes.vocabulary import IMAGE_SIZE
from densecli.train.distillation import TrainConfig, train
from densecli.train.refiner import RefinerConfig, train_refiner

SCENES, TEST_SCENES = 480, 300
TEACHERS = ("scenes-pvlm", "crops-scenes-s", "scenes-vfm", "self-scenes-s", "refiner-scenes-s")
FIGURES = {
    "Boxes": "boxes_top1",
    "Masks-T": "masks_thing_top1",
    "Masks-S": "masks_stuff_top1",
    "stuff as thing": "stuff_as_thing",
}
# A cell is 1.3 to 4 of the student's tokens wide: correlations inside a box are of 4 x 4 points, not 7 x 7.
POINTS = 4
# A title of each row and what it sets beside the demo's own settings. theta: chosen on val scenes.
SURE = {"theta": 0.8}
PRESETS: Mapping[str, dict[str, Any]] = {
    "clipself": {"method": "clipself"},
    "sc-clipself": {"method": "sc-clipself", "spatial_side": POINTS},
    "r-sc-clipself": {"method": "r-sc-clipself"},
    "declip": {"method": "declip"},
    "declip-released": {"method": "declip-released"},
    "regiontext": {"method": "regiontext", **SURE},
    "sc-regiontext": {"method": "sc-regiontext", "spatial_side": POINTS, **SURE},
    "r-sc-regiontext": {"method": "r-sc-regiontext", **SURE},
    "r-sc-v": {"method": "r-sc-v"},
    "densevlm": {"method": "densevlm", "theta": 0.8, "beta": 0.0},
    "densevlm, theta 0.3": {"method": "densevlm", "theta": 0.3, "beta": 0.0},
    "densevlm, beta 0.3 (the demo)": {"method": "densevlm", "theta": 0.8, "beta": 0.3},
    "densevlm, beta 1 (not decoupled)": {"method": "densevlm", "theta": 0.8, "beta": 1.0},
}
DECOUPLING: Mapping[str, dict[str, Any]] = {
    f"theta {theta}, beta {beta}": {"method": "densevlm", "theta": theta, "beta": beta}
    for theta in (0.3, 0.8)
    for beta in (0.0, 0.03, 0.1, 0.3, 1.0)
}
ROWS = {"presets": PRESETS, "decoupling": DECOUPLING}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", choices=ROWS, default="presets")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/presets"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    store = str(args.out / "store")
    for teacher in TEACHERS:
        refiner = teacher.startswith("refiner-")
        add_column(store, teacher, {teacher: trained_refiner(store, args.out)} if refiner else {})
    write_coco(args.out / "data", seed=0, split=args.split, count=TEST_SCENES)

    tasks = [(title, seed) for title in ROWS[args.rows] for seed in args.seeds]
    untrained = {
        "student, untrained": ModelUnderTest(model="scenes-s"),
        "student, untrained, read as declip": ModelUnderTest(
            model="scenes-s", settings={"canvas": IMAGE_SIZE, "mode": "qq+scale"}
        ),
        "P-VLM": ModelUnderTest(model="scenes-pvlm"),
    }
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), initializer=_one_thread) as pool:
        before = list(pool.map(figures, untrained.values(), *_always(args, len(untrained))))
        configs = [settings(store, args.out, seed, ROWS[args.rows][title]) for title, seed in tasks]
        after = list(pool.map(fitted, configs, *_always(args, len(tasks))))
    table = {title: [row] for title, row in zip(untrained, before, strict=True)}
    for (title, _), row in zip(tasks, after, strict=True):
        table.setdefault(title, []).append(row)
    (args.out / f"{args.rows}-{args.split}.json").write_text(json.dumps(table, indent=1) + "\n")
    print(f"\n| | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}")
    for title, rows in table.items():
        print(f"| {title} | {' | '.join(_spread([row[name] for row in rows]) for name in FIGURES)} |")


def trained_refiner(store: str, out: Path) -> str:
    """The weights of the student's Refiner, trained on the store's photos where they are not there."""
    config = RefinerConfig(
        store=store, run=str(out / "refiner"), student="scenes-s", max_steps=300, batch_size=24, lr=3e-4
    )
    return train_refiner(config)["export"]


def add_column(store: str, teacher: str, weights: Mapping[str, str]) -> None:
    """Have one teacher fill its column; stop if that changed a byte of any file that was there."""
    before = digests(store)
    summary = build_shards(
        BuildConfig(
            dataset="scenes",
            split="train",
            limit=SCENES,
            store=store,
            teachers=(teacher,),
            weights=weights,
            side=POINTS,
        )
    )
    after = digests(store)
    touched = [name for name in before if after.get(name) != before[name]]
    if touched:
        raise SystemExit(f"{teacher} touched {', '.join(touched)}")
    print(f"{teacher}: {summary['status']}, {len(before)} files as they were, {len(after) - len(before)} new")


def digests(store: str) -> dict[str, tuple[str, int, int]]:
    """sha256, inode and time of change in ns of every file below a folder, by path."""
    files = sorted(path for path in Path(store).rglob("*") if path.is_file())
    return {
        str(path.relative_to(store)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_ino,
            path.stat().st_mtime_ns,
        )
        for path in files
    }


def settings(store: str, out: Path, seed: int, row: dict[str, Any]) -> TrainConfig:
    """The demo's length, batch and learning rate; equal rows of two tables are one run."""
    name = "-".join([row["method"], *(f"{key}-{value}" for key, value in row.items() if key != "method")])
    return TrainConfig(
        store=store,
        run=str(out / f"{name}-{seed}"),
        student="scenes-s",
        max_steps=300,
        batch_size=24,
        lr=3e-4,
        alpha=0.9,
        seed=seed,
        workers=0,
        **row,
    )


def fitted(config: TrainConfig, data: str, split: str) -> dict[str, float]:
    """`figures` of the student of a run, trained where it is not."""
    train(config)
    return figures(ModelUnderTest.of_run(config.run), data, split)


def figures(under_test: ModelUnderTest, data: str, split: str) -> dict[str, float]:
    """Region classification of a model in percent, by heading."""
    config = ClassifyConfig(**{"canvas": IMAGE_SIZE, "batch_size": 50, **(under_test.settings or {})})
    found = vars(evaluate_regions(under_test, data=data, split=split, categories="scenes", config=config))
    return {heading: found[name] for heading, name in FIGURES.items()}


def _always(args: argparse.Namespace, n: int) -> list[list[str]]:
    return [[str(args.out / "data")] * n, [args.split] * n]


def _one_thread() -> None:
    # A run each on one thread is faster than one run on all of them: the layers are small.
    torch.set_num_threads(1)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
