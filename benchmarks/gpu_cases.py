"""The cases that gpu.py measures, section by section."""

import argparse
import gc
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# What would be fetched fails at once: there is no network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import cached_vs_live as steps
import torch

from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.pipeline.build_request import prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.worker import UNITS_PER_WORKER
from densecli.shards.geometry import Canvas
from densecli.shards.joined import decode_image
from densecli.shards.store import Store
from densecli.shards.tars import read_shard
from densecli.train.config import TrainConfig
from densecli.train.dataloader import Loader
from densecli.train.distillation import make_trainer
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.memory import optimizer_bytes, step_bytes
from densecli.train.trainer_config import LoaderConfig

Row = dict[str, Any]
ROOT = Path(__file__).parents[1]
GPU_TESTS = (
    "tests/train/test_gpu_decode.py",
    "tests/train/test_synchronisations.py",
    "tests/evaluation/test_processes.py::test_task__a_gpu_is_as_the_cpu",
)
BATCHES = {512: 48, 1024: 16}
TEACHERS = ("vitl14", "crops-vitb16", "dinov2-vitb14")
SMALL_TEACHERS = ("scenes-pvlm",)


class Time:
    """What is left of a section's time."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.longest = 0.0

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def cases(self, cases: list[Row]) -> Iterator[tuple[Row, bool]]:
        """Yields each case, and whether it fits: as long as the longest so far would not end too late."""
        for case in cases:
            started, fits = time.monotonic(), self.left > self.longest
            yield case, fits
            if fits:
                self.longest = max(self.longest, time.monotonic() - started)


def attempted(case: Row, work: Callable[[], Row]) -> Row:
    """A case with its figures, or with the error for which it has none."""
    try:
        return {**case, **work()}
    except Exception as error:
        words = [type(error).__name__, *str(error).strip().splitlines()[:1]]
        return {**case, "left out": ": ".join(words)[:300]}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def training(args: argparse.Namespace, limit: Time) -> Iterator[Row]:
    sides = (steps.IMAGE_SIZE,) if args.small else tuple(BATCHES)
    methods = ("densevlm",) if args.small else tuple(steps.METHODS)
    compiled = (False,) if args.small else (True, False)
    all_cases = [
        {"side": side, "compiled": compiles, "method": method}
        for side in sides
        for compiles in compiled
        for method in methods
    ]
    size = steps.SIZES["small" if args.small else "full"]
    with TemporaryDirectory() as folder:
        for case, fits in limit.cases(all_cases):
            if not fits:
                yield {**case, "left out": "no time"}
                continue
            seconds = limit.left / len(all_cases)
            place = f"{folder}/{case['side']}"
            yield attempted(
                case, partial(trained, case, place, replace(size, canvas=case["side"]), seconds, args)
            )
            torch._dynamo.reset()


def trained(case: Row, place: str, size: steps.Size, seconds: float, args: argparse.Namespace) -> Row:
    """The figures of one method."""
    given = argparse.Namespace(
        batch_size=4 if args.small else BATCHES[case["side"]],
        batches=2 if args.small else 4,
        rounds=1 if args.small else 8,
        seconds=seconds,
        workers=len(os.sched_getaffinity(0)),
        decode="cpu",
        device=args.device,
        compile=case["compiled"],
    )
    names = [teacher.format(**vars(size)) for teacher in steps.METHODS[case["method"]]]
    teachers = steps.build(place, size, names, given)
    found = steps.measure(case["method"], place, size, teachers, given)
    return {
        "images/s": found["cached"],
        "cached / live": found["cached"] / found["live"],
        "of the ceiling": found["cached"] / found["ceiling"],
        "MFU": found["mfu"],
        "MFU of bare passes": found["bare mfu"],
        "of bare passes": found["cached"] / found["bare"],
        "waits a step": found["waits"],
        "idle": found["idle"],
        "GB": found["memory"] / 1e9,
        "rounds": found["rounds"],
    }


def build(args: argparse.Namespace, limit: Time) -> Iterator[Row]:
    teachers = SMALL_TEACHERS if args.small else TEACHERS
    precisions = ("fp32",) if args.small else ("fp16", "tf32", "fp32")
    cases: list[Row] = [{"teacher": name, "precision": each} for name in teachers for each in precisions]
    with TemporaryDirectory() as folder:
        # The photos once: the figures are those of the teachers.
        built(folder, (), "auto", args)
        for case, fits in limit.cases(cases):
            if not fits:
                yield {**case, "left out": "no time"}
                continue
            yield attempted(case, partial(build_of, case, folder, args))


def build_of(case: Row, folder: str, args: argparse.Namespace) -> Row:
    """The figures of one teacher, after a shard that warms up."""
    device = pick_device(args.device)
    request = partial(built, folder, (case["teacher"],), case["precision"], args)
    request(shards=1)
    found: list[tuple[float, int, float]] = []
    idle = steps.idle(lambda: found.append(request()), device, steps=1)
    # Without a GPU nothing was built for it.
    wall, samples, teacher = found[0] if found else request()
    duty = teacher / wall if math.isnan(idle) else 1 - idle
    return {"photos/s": samples / wall, "duty": duty, "photos": samples}


def built(
    folder: str,
    teachers: tuple[str, ...],
    precision: Any,
    args: argparse.Namespace,
    shards: int | None = None,
) -> tuple[float, int, float]:
    """Builds what is missing. Returns the seconds, the photos, and the seconds of the teachers' device."""
    models = {name.removeprefix("crops-") for name in teachers}
    config = BuildConfig(
        dataset="scenes",
        split="train",
        limit=16 if args.small else 512,
        shard_size=8 if args.small else 64,
        canvas=steps.IMAGE_SIZE if args.small else 512,
        store=f"{folder}/store",
        teachers=teachers,
        teacher_precision=precision,
        weights=dict.fromkeys(models, "random:0"),
        views=1,
        device=args.device,
    )
    request, source = prepare(config)
    builder = request.builder()
    units = [unit_of(source, shard, config.shard_size) for shard in request.store.shard_names[:shards]]
    started, missing = time.perf_counter(), [unit for unit in units if not built_already(builder, unit.shard)]
    with ThreadPoolExecutor(UNITS_PER_WORKER) as pool:
        reports = list(pool.map(builder.build, missing))
    wall = time.perf_counter() - started
    return wall, sum(report.samples for report in reports), sum(r.seconds.get("teacher", 0) for r in reports)


def built_already(builder: Any, shard: str) -> bool:
    columns = [
        builder.config.images,
        builder.config.regions,
        *(column for column, _ in builder.config.targets),
    ]
    return all(column.has(shard) for column in columns)


def decode(args: argparse.Namespace, limit: Time) -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        built(folder, SMALL_TEACHERS, "auto", args)
        store = Store.open(f"{folder}/store")
        canvas = Canvas(store.canvas)
        jpegs = [parts["jpg"] for shard in store.shard_names for _, parts in read_shard(store.images, shard)]
        cores = len(os.sched_getaffinity(0))

        def pillow(threads: int) -> Row:
            with ThreadPoolExecutor(threads) as pool:
                photos = partial(pool.map, lambda jpeg: canvas.pad(decode_image(jpeg)), jpegs)
                return {"photos/s": rate(lambda: list(photos()), len(jpegs))}

        device, batch = pick_device(args.device), min(48, len(jpegs))

        def on_device() -> Row:
            decoder = JpegDecoder(store.canvas, device)
            starts = range(0, len(jpegs), batch)
            return {"photos/s": rate(lambda: [decoder(jpegs[i : i + batch]) for i in starts], len(jpegs))}

        [labels] = store.columns("targets")

        def loaded(threads: int) -> Row:
            config = LoaderConfig(batch_size=batch, workers=threads)
            loader = Loader(store, store.regions_of(labels), {"labels": labels}, config)
            loader.pinned = device.type == "cuda"
            epochs = iter(range(10**6))
            return {"photos/s": rate(lambda: list(loader.batches(next(epochs))), len(jpegs))}

        for threads in sorted({1, cores}):
            yield attempted({"case": f"Pillow, {threads} threads"}, partial(pillow, threads))
        yield attempted({"case": f"{device.type}, batches of {batch}"}, on_device)
        for threads in sorted({0, 2, 4, 8, cores} & set(range(cores + 1))):
            case = {"case": f"loader, {threads} threads"}
            yield (
                attempted(case, partial(loaded, threads))
                if limit.left > 5
                else {**case, "left out": "no time"}
            )


def rate(work: Callable[[], object], count: int, rounds: int = 3) -> float:
    """Items per second, the best of some rounds after one that warms up."""
    took = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    return count / min(took[1:])


def memory(args: argparse.Namespace, limit: Time) -> Iterator[Row]:
    size = steps.SIZES["small" if args.small else "full"]
    device = pick_device(args.device)
    given = argparse.Namespace(batch_size=4 if args.small else 16, batches=1, device=args.device)
    with TemporaryDirectory() as folder:
        steps.build(folder, size, [size.pvlm], given)

        def trainer_of(**settings: Any) -> Any:
            return make_trainer(
                TrainConfig(
                    store=f"{folder}/store",
                    run=f"{folder}/run",
                    student=size.student,
                    weights="random:0",
                    batch_size=given.batch_size,
                    device=args.device,
                    compile=False,
                    theta=0.0,
                    **settings,
                )
            )

        def step(recomputed: bool) -> Row:
            trainer = trainer_of(activation_checkpointing=recomputed)
            batch = next(trainer.steps.batches(0))[0].to(device)
            estimate = step_bytes(trainer.recipe, batch, trainer.precision)
            found = steps.peak(
                lambda: trainer.gradient.add(batch, trainer.gradient.count([batch]), last=True), device
            )
            return {
                "estimated GB": estimate / 1e9,
                "measured GB": found / 1e9,
                "moments GB": optimizer_bytes(trainer.model) / 1e9,
            }

        def out_of_memory() -> Row:
            if device.type != "cuda":
                return {"left out": "needs a GPU"}
            trainer = trainer_of(activation_checkpointing=False)
            batch = next(trainer.steps.batches(0))[0].to(device)
            estimate = step_bytes(trainer.recipe, batch, trainer.precision)
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.empty_cache()
            allowed = torch.cuda.memory_allocated() + 0.3 * estimate
            torch.cuda.set_per_process_memory_fraction(allowed / total)
            try:
                trainer.train_step([batch])
            except DenseCLIError as error:
                return {"said": f"{error} {error.hint}"}
            return {"said": "no error"}

        yield attempted({"case": "a step"}, partial(step, False))
        yield attempted({"case": "a step, activations recomputed"}, partial(step, True))
        yield attempted({"case": "out of memory"}, out_of_memory)


def tests(args: argparse.Namespace, limit: Time) -> Iterator[Row]:
    if pick_device(args.device).type != "cuda":
        yield {"left out": "needs a GPU"}
        return
    command = [sys.executable, "-m", "pytest", "-q", "--show-capture=no", *GPU_TESTS]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=max(1, limit.left)
        )
        yield {"case": "pytest", "said": done.stdout.strip().splitlines()[-1], "failed": done.returncode}
    except subprocess.TimeoutExpired:
        yield {"case": "pytest", "left out": "no time"}


SECTIONS: dict[str, tuple[Callable[[argparse.Namespace, Time], Iterator[Row]], float]] = {
    "training": (training, 6),
    "build": (build, 3),
    "decode": (decode, 1),
    "memory": (memory, 1),
    "tests": (tests, 1),
}
"""Sections, and their shares of the time."""
