"""The teacher's side: what steps of a build take, beside the way they were done before, as a table.

    export OMP_NUM_THREADS=1
    python benchmarks/teachers.py
    python benchmarks/teachers.py --photos data/coco/train2017 --weights weights/dinov2-vits14.safetensors

CPU milliseconds a photo (a prompt, for texts) of both, which take turns in this process on one thread;
medians.

- factors: token factors of rank 64, by a full decomposition in float64 and by the subspace iteration, without
  and with the errors that are stored with them. Of DINOv2-S's tokens of photos where --photos and --weights
  are given, else of random tokens with a like spectrum. Their RMSE is printed.
- topk: labels of 400 cells by two full stable sorts and with errors measured over all categories, and by
  packed keys, a partition and errors of what is kept; the same bytes. Of a P-VLM that is sure (20 categories
  kept for a cell) and of one that is not (205).
- texts: prompts of some of the 316 categories through a text tower as they come, and sorted by length; random
  weights. The tokens that are computed for all 316 are counted below, with their padding.
- crops: the crops of two teachers, prepared for each, and once.

Then the total variation of labels from a teacher in fp16 and bf16 from those in fp32: the world's own
P-VLM on its own photos.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
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
from densecli.models.text import BATCH_SIZE, text_embeddings
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of .jpg files")
    parser.add_argument("--weights", help="weights of dinov2-vits14")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--names", type=int, default=8, help="category names, each with 80 prompts")
    args = parser.parse_args()
    torch.set_num_threads(1)

    tokens, of_what = some_tokens(args.photos, args.weights)
    every = load_categories("316").names
    names = every[:: len(every) // args.names][: args.names]
    rows = [
        row(f"factors ({of_what})", MAPS, args.rounds, *factors_alone(tokens)),
        row("factors with errors", MAPS, args.rounds, *factors(tokens)),
        row("topk, sure", 1, args.rounds, *topk(9)),
        row("topk, unsure", 1, args.rounds, *topk(3)),
        row("texts (laion-vit-b16, random)", 80 * len(names), args.rounds, *texts(names)),
        row("crops of two teachers", 1, args.rounds, *crops()),
    ]
    print(table([["CPU ms", "before", "after", "ratio"], *rows]))
    for name, rmse in rmses(tokens).items():
        print(f"RMSE of the Gram matrix, {name}: {rmse:.5f}")
    print(
        "Tokens a prompt: {:.1f} as they come, {:.1f} sorted, {:.1f} without padding".format(*lengths(every))
    )
    for name, (mean, largest) in precisions().items():
        print(f"Total variation of labels, {name} against fp32: mean {mean:.1e}, largest {largest:.1e}")


def row(title: str, count: int, rounds: int, before: Work, after: Work) -> list[str]:
    """A line of the table. The first round warms up."""
    took: dict[Work, list[float]] = {before: [], after: []}
    for _ in range(rounds + 1):
        for work, times in took.items():
            start = time.process_time()
            work()
            times.append((time.process_time() - start) * 1000 / count)
    medians = [statistics.median(times[1:]) for times in took.values()]
    return [title, *(f"{median:.2f}" for median in medians), f"{medians[0] / medians[1]:.1f}"]


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


def texts(names: tuple[str, ...]) -> tuple[Work, Work]:
    model = build(resolve("laion-vit-b16"))
    prompts = [prompt(template, name) for name in names for template in TEMPLATES["imagenet"]]
    # Of few prompts, small batches, so that those of one length fill as many as they do of all.
    at_once = 64

    @torch.no_grad()
    def as_they_come() -> None:
        for i in range(0, len(prompts), at_once):
            model.encode_text(model.tokenize(prompts[i : i + at_once]))

    return as_they_come, lambda: text_embeddings(model, names, TEMPLATES["imagenet"], batch_size=at_once)


def lengths(names: tuple[str, ...]) -> tuple[float, float, float]:
    """Tokens of a prompt with the padding of its batch, as prompts come and sorted, and without padding."""
    prompts = [prompt(template, name) for name in names for template in TEMPLATES["imagenet"]]
    tokens = (build(resolve("laion-vit-b16")).tokenize(prompts) != 0).sum(dim=1)

    def padded(tokens: torch.Tensor) -> float:
        return sum(int(batch.max()) * len(batch) for batch in tokens.split(BATCH_SIZE)) / len(tokens)

    return padded(tokens), padded(tokens.sort().values), float(tokens.float().mean())


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
