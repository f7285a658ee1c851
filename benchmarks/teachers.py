"""The teacher's side: what steps of a build take, beside the way they were done before, as a table.

    export OMP_NUM_THREADS=1
    python benchmarks/teachers.py
    python benchmarks/teachers.py --photos data/coco/train2017 --weights weights/dinov2-vits14.safetensors

CPU milliseconds a photo (a prompt, for texts) of both, which take turns in this process, and those by the
clock; medians. With one thread, or with as many as numpy and torch choose:

    env -u OMP_NUM_THREADS python benchmarks/teachers.py --threads 0 --parts factors

- factors: token factors of rank 64, by a full decomposition in float64 and by the subspace iteration, without
  and with the errors that are stored with them. Of DINOv2-S's tokens of photos where --photos and --weights
  are given, else of random tokens with a like spectrum. Their RMSE is printed.
- topk: labels of 400 cells by two full stable sorts and with errors measured over all categories, and by
  packed keys, a partition and errors of what is kept; the same bytes. Of a P-VLM that is sure (20 categories
  kept for a cell) and of one that is not (205).
- texts: some batches of the prompts of all 316 categories, evenly spaced, through a text tower, as they come
  and sorted by length; random weights. The tokens that are computed, with the padding, are counted below.
- crops: the crops of two teachers, prepared for each, and once.

Then the total variation of labels from a teacher in fp16 and bf16 from those in fp32: the world's own
P-VLM on its own photos.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from gram_rank import unit_tokens

from densecli.core.tables import table
from densecli.models.categories import load_categories
from densecli.models.prompts import TEMPLATES, prompt
from densecli.models.registry import build, resolve
from densecli.models.text import BATCH_SIZE
from densecli.pipeline.batcher import live_targets
from densecli.pipeline.build_request import prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.teachers import Photo
from densecli.pipeline.teachers.crops import CropsConfig
from densecli.pipeline.teachers.factors import _factor as device_factor
from densecli.pipeline.teachers.factors import encode_maps, errors_of
from densecli.shards.codecs import LowRank, TopK
from densecli.shards.geometry import Canvas
from densecli.shards.joined import read_joined
from densecli.shards.regions import GridPlan
from densecli.shards.store import Store

Work = Callable[[], object]
MAPS = 8
PARTS = ("factors", "topk", "texts", "crops", "precisions")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of .jpg files")
    parser.add_argument("--weights", help="weights of dinov2-vits14")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; 0: as many as it chooses")
    parser.add_argument("--parts", default=",".join(PARTS), help="What to measure.")
    parser.add_argument("--batches", type=int, default=8, help=f"batches of {BATCH_SIZE} prompts")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if args.threads:
        torch.set_num_threads(args.threads)

    rows, lines = list[list[str]](), list[str]()

    def measure(title: str, count: int, works: tuple[Work, Work]) -> None:
        rows.append(row(title, count, args.rounds, *works))

    if "factors" in parts:
        tokens, of_what = some_tokens(args.photos, args.weights)
        measure(f"factors ({of_what})", MAPS, factors_alone(tokens))
        measure("factors with errors", MAPS, factors(tokens))
        lines += [f"RMSE of the Gram matrix, {name}: {rmse:.5f}" for name, rmse in rmses(tokens).items()]
    if "topk" in parts:
        measure("topk, sure", 1, topk(9))
        measure("topk, unsure", 1, topk(3))
    if "texts" in parts:
        texts = Prompts(args.batches)
        measure("texts (laion-vit-b16, random)", BATCH_SIZE * args.batches, texts.works())
        for what, batches in (("all", texts.all), ("those measured", texts.some)):
            come, in_order = map(padded, batches)
            lines.append(f"Tokens a prompt of {what}: {come:.1f} as they come, {in_order:.1f} sorted")
        lines.append(f"Without padding: {texts.without_padding:.1f}")
    if "crops" in parts:
        measure("crops of two teachers", 1, crops())
    if "precisions" in parts:
        lines += [
            f"Total variation of labels, {name} against fp32: mean {mean:.1e}, largest {largest:.1e}"
            for name, (mean, largest) in precisions().items()
        ]
    heads = ["before", "after", "ratio"]
    print(table([["", *(f"CPU {h}" for h in heads), *(f"clock {h}" for h in heads)], *rows]))
    print(f"torch {torch.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads of torch")
    print(*lines, sep="\n")


def row(title: str, count: int, rounds: int, before: Work, after: Work) -> list[str]:
    """A line of the table. The first round warms up."""
    took: dict[Work, list[tuple[float, float]]] = {before: [], after: []}
    for _ in range(rounds + 1):
        for work, times in took.items():
            cpu, start = time.process_time(), time.perf_counter()
            work()
            times.append((time.process_time() - cpu, time.perf_counter() - start))
    cells = [title]
    for clock in zip(*(zip(*times[1:], strict=True) for times in took.values()), strict=True):
        medians = [1000 * statistics.median(seconds) / count for seconds in clock]
        cells += [*(f"{median:.2f}" for median in medians), f"{medians[0] / medians[1]:.1f}"]
    return cells


def some_tokens(photos: Path | None, weights: str | None) -> tuple[np.ndarray, str]:
    """(MAPS, N, C) float32 unit tokens, and what they are of."""
    if photos and weights:
        paths = sorted(photos.glob("*.jpg"))[:MAPS]
        return np.stack(unit_tokens("dinov2-vits14", weights, paths, 512, 16)), "DINOv2-S on photos"
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(384, 384)))[0]
    x = rng.normal(size=(MAPS, 1024, 384)) * np.arange(1, 385) ** -0.9 @ basis
    return (x / np.linalg.norm(x, axis=2, keepdims=True)).astype(np.float32), "random tokens"


FULL, SUBSPACE = LowRank(), LowRank(method="subspace")


def factors(tokens: np.ndarray) -> tuple[Work, Work]:
    on_device = torch.from_numpy(tokens)
    return lambda: [FULL.encode(x) for x in tokens], lambda: encode_maps(SUBSPACE, on_device)


def factors_alone(tokens: np.ndarray) -> tuple[Work, Work]:
    on_device = torch.from_numpy(tokens)
    return lambda: [FULL._truncate(x) for x in tokens], lambda: device_factor(SUBSPACE, on_device)


def rmses(tokens: np.ndarray) -> dict[str, float]:
    coded = encode_maps(SUBSPACE, torch.from_numpy(tokens))
    return {
        "full decomposition": float(np.mean([FULL.encode(x)[1]["rmse"] for x in tokens])),
        "subspace iteration": float(
            np.mean([errors_of(SUBSPACE, figures.numpy())["rmse"] for figures, *_ in coded])
        ),
    }


class SortedTopK(TopK):
    """The codec as it was, with two full stable sorts."""

    def encode(self, p: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        things, (n, d) = np.array(self.things), p.shape
        order = np.argsort(-p, axis=1, kind="stable")
        falling = np.take_along_axis(p, order, axis=1)
        kept = np.cumsum(falling[:, ::-1], axis=1, dtype=np.float64)[:, ::-1] > self.tail_mass
        kept[:, :1] = True
        spare = max(0, n * min(self.k, d) - int(kept.sum()))
        kept.flat[np.argsort(np.where(kept, 1, -falling), axis=None, kind="stable")[:spare]] = True
        tail, is_thing = np.where(kept, 0, falling.astype(np.float64)), things[order]
        mass = np.stack([(tail * side).sum(1) for side in (is_thing, ~is_thing)], axis=1)
        arrays = {
            "count": kept.sum(1).astype(np.uint16),
            "ids": order[kept].astype(np.uint16),
            "p": falling[kept].astype(np.float16),
            "rest": mass.astype(np.float32),
        }
        return arrays, self.error(arrays, p)

    def error(self, arrays: Mapping[str, np.ndarray], p: np.ndarray) -> dict[str, float]:
        things, decoded = np.array(self.things), self.decode(arrays).astype(np.float64)
        tail = np.where(decoded[:, :-2] > 0, 0, p.astype(np.float64))
        exact = np.column_stack([p - tail, tail[:, things].sum(1), tail[:, ~things].sum(1)])
        variation = np.abs(decoded - exact).sum(1) / 2
        rest = tail.sum(1)
        found = {"max_tv": variation.max(), "mean_tv": variation.mean()}
        return {**found, "max_rest": rest.max(), "mean_rest": rest.mean()}


def topk(spread: float) -> tuple[Work, Work]:
    """Labels of softmax(logits) with logits of a standard deviation."""
    things = tuple(load_categories("316").thing_flags().tolist())
    logits = np.random.default_rng(0).normal(size=(400, len(things))) * spread
    p = F.softmax(torch.from_numpy(logits), dim=1).float().numpy()
    before, after = SortedTopK(things=things), TopK(things=things)
    (arrays, errors), (expected, figures) = after.encode(p), before.encode(p)
    assert all(arrays[name].tobytes() == expected[name].tobytes() for name in expected)
    assert all(np.isclose(errors[name], figures[name], rtol=1e-9, atol=0) for name in figures)
    return lambda: before.encode(p), lambda: after.encode(p)


class Prompts:
    """The prompts of all 316 categories in batches, as they come and sorted by length, and some of both."""

    def __init__(self, batches: int) -> None:
        names = load_categories("316").names
        prompts = [prompt(template, name) for name in names for template in TEMPLATES["imagenet"]]
        self.model = build(resolve("laion-vit-b16"))
        tokens = self.model.tokenize(prompts)
        self.all = tokens.split(BATCH_SIZE), tokens[_lengths(tokens).argsort(stable=True)].split(BATCH_SIZE)
        # Evenly spaced, so that the sorted ones are of all lengths.
        n = len(self.all[0])
        places = [(2 * i + 1) * n // (2 * batches) for i in range(batches)]
        self.some = [[each[place] for place in places] for each in self.all]
        self.without_padding = float(_lengths(tokens).float().mean())

    def works(self) -> tuple[Work, Work]:
        as_they_come, in_order = self.some

        @torch.no_grad()
        def encode(batches: list[torch.Tensor]) -> None:
            for batch in batches:
                self.model.encode_text(batch)

        return lambda: encode(as_they_come), lambda: encode(in_order)


def _lengths(tokens: torch.Tensor) -> torch.Tensor:
    return (tokens != 0).sum(dim=1)


def padded(batches: Sequence[torch.Tensor]) -> float:
    """Tokens of a prompt, with the padding of its batch."""
    tokens = sum(int(_lengths(batch).max()) * len(batch) for batch in batches)
    return tokens / sum(map(len, batches))


def crops() -> tuple[Work, Work]:
    teachers = [
        CropsConfig(model="scenes-s", weights=f"random:{seed}", views=4).load("cpu") for seed in (0, 1)
    ]
    photo = Photo(
        key="photo",
        image=np.random.default_rng(0).integers(0, 255, (384, 512, 3), np.uint8),
        canvas=Canvas(512),
        regions=GridPlan("paper").boxes([0, 0, 1, 0.75]),
    )

    def each() -> None:
        for teacher in teachers:
            photo.forget()
            teacher.inputs(photo)

    def once() -> None:
        photo.forget()
        for teacher in teachers:
            teacher.inputs(photo)

    return each, once


def precisions() -> dict[str, tuple[float, float]]:
    """Mean and largest total variation over the cells of 16 photos, by precision."""
    with scenes() as (config, photos):
        request, _ = prepare(config)
        teacher = request.targets[0][0].load("cpu")
        exact, *lower = (live_targets(teacher, photos, precision=name) for name in ("fp32", "fp16", "bf16"))
    found = {}
    for name, targets in zip(("fp16", "bf16"), lower, strict=True):
        off = np.concatenate([np.abs(a - b).sum(1) / 2 for a, b in zip(targets, exact, strict=True)])
        found[name] = float(off.mean()), float(off.max())
    return found


@contextmanager
def scenes() -> Iterator[tuple[BuildConfig, list[Photo]]]:
    """A build of the generated world's photos for its P-VLM, and the photos as stored."""
    with TemporaryDirectory() as folder:
        config = BuildConfig(
            dataset="scenes",
            split="val",
            limit=16,
            store=f"{folder}/store",
            teachers=("scenes-pvlm",),
            device="cpu",
        )
        request, source = prepare(config)
        request.builder().build(unit_of(source, "000000", config.shard_size))
        store = Store.open(request.store.root)
        records = read_joined([store.images, store.columns("regions")[0]], "000000")
        yield (
            config,
            [
                Photo(
                    key=record.key,
                    image=record.image(),
                    canvas=Canvas(store.canvas),
                    regions=record.regions(),
                )
                for record in records
            ],
        )


if __name__ == "__main__":
    main()
