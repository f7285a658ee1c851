"""Everything about a GPU that the project promises, measured in one short run.

    python benchmarks/gpu.py --minutes 12
    python benchmarks/gpu.py --small --device cpu    # tries the script itself

It needs no network and no data: photos are the generated world's, weights are random, which changes no speed.

- tests: the tests that need a GPU.
- training: cached, live and loader-free steps of four methods at 512 and 1,024 px, compiled and eager; FLOP/s
  as a share of the GPU's peak, also of a bare forward and backward pass; how often a step waits for the GPU,
  and the share of time without a kernel.
- build: photos per second of a build for three teachers in fp32, tf32 and fp16, and the teacher's duty: the
  share of the time in which the GPU works for it.
- decode: photos per second decoded by Pillow in threads and by the GPU; batches of the loader by threads.
- memory: a step's memory as estimated and as it is, and the error of a step that does not fit.

Each section runs in a process of its own and has a share of the minutes; time that one leaves goes to those
after it. What did not fit is named. Figures are written to --out as JSON, and printed as a table, where !
marks a goal that was missed.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
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

import torch

sys.path.insert(0, str(Path(__file__).parent))

import cached_vs_live as steps

from densecli.core.device import lacks_memory, pick_device
from densecli.core.errors import DenseCLIError
from densecli.core.tables import table
from densecli.pipeline.build_request import prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.worker import UNITS_PER_WORKER
from densecli.shards.geometry import Canvas
from densecli.shards.joined import decode_image
from densecli.shards.store import Store
from densecli.shards.tars import read_shard
from densecli.train.dataloader import Loader, LoaderConfig
from densecli.train.distillation import TrainConfig, make_trainer
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.memory import optimizer_bytes, step_bytes

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
GOALS: dict[tuple[str, str], Callable[[Row], float]] = {
    ("training", "of the ceiling"): lambda row: 0.97,
    ("training", "MFU"): lambda row: 0.38 if row["side"] == 512 and row["compiled"] else 0,
    ("training", "cached / live"): lambda row: {"densevlm": 2.3, "clipself": 2, "declip": 2}.get(
        row["method"], 0
    ),
    ("build", "duty"): lambda row: 0.9 if len(os.sched_getaffinity(0)) >= 16 else 0,
}
"""The least that a figure should be, by section and figure; 0 for no goal."""


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
            batch = 4 if args.small else BATCHES[case["side"]]
            of_case = argparse.Namespace(
                batch_size=batch,
                batches=2 if args.small else 4,
                rounds=1 if args.small else 8,
                seconds=limit.left / len(all_cases),
                workers=len(os.sched_getaffinity(0)),
                decode="cpu",
                device=args.device,
                compile=case["compiled"],
            )
            sized = replace(size, canvas=case["side"])
            place = f"{folder}/{case['side']}"
            names = [teacher.format(**vars(sized)) for teacher in steps.METHODS[case["method"]]]
            teachers = steps.build(place, sized, names, of_case)
            found = steps.measure(case["method"], place, sized, teachers, of_case)
            yield {
                **case,
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
            if args.device != "cpu":
                torch.cuda.empty_cache()
                torch._dynamo.reset()


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
            built(folder, (case["teacher"],), case["precision"], args, shards=1)
            wall, samples, teacher = built(folder, (case["teacher"],), case["precision"], args)
            yield {**case, "photos/s": samples / wall, "duty": teacher / wall, "photos": samples}


def built(
    folder: str,
    teachers: tuple[str, ...],
    precision: str,
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
        for threads in sorted({1, cores}):
            with ThreadPoolExecutor(threads) as pool:
                pillow = partial(pool.map, lambda jpeg: canvas.pad(decode_image(jpeg)), jpegs)
                found = rate(lambda pillow=pillow: list(pillow()), len(jpegs))
            yield {"case": f"Pillow, {threads} threads", "photos/s": found}
        device = pick_device(args.device)
        decoder = JpegDecoder(store.canvas, device)
        batch = min(48, len(jpegs))
        yield {
            "case": f"{device.type}, batches of {batch}",
            "photos/s": rate(
                lambda: [decoder(jpegs[i : i + batch]) for i in range(0, len(jpegs), batch)], len(jpegs)
            ),
        }
        [labels] = store.columns("targets")
        for threads in sorted({0, 2, 4, 8, cores} & set(range(cores + 1))):
            if limit.left < 5:
                yield {"case": f"loader, {threads} threads", "left out": "no time"}
                continue
            loader = Loader(
                store,
                store.regions_of(labels),
                {"labels": labels},
                LoaderConfig(batch_size=min(48, len(jpegs)), workers=threads),
            )
            loader.pinned = device.type == "cuda"
            epochs = iter(range(10**6))
            yield {
                "case": f"loader, {threads} threads",
                "photos/s": rate(lambda loader=loader, n=epochs: list(loader.batches(next(n))), len(jpegs)),
            }


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

        for recomputed in (False, True):
            trainer = trainer_of(activation_checkpointing=recomputed)
            batch = next(trainer.steps.batches(0))[0].to(device)
            estimate = step_bytes(trainer.recipe, batch, trainer.precision)
            found = steps.peak(lambda t=trainer, b=batch: t._backward(b, t._count([b]), last=True), device)
            yield {
                "case": f"a step{', activations recomputed' if recomputed else ''}",
                "estimated GB": estimate / 1e9,
                "measured GB": found / 1e9,
                "moments GB": optimizer_bytes(trainer.model) / 1e9,
            }
        if device.type != "cuda":
            yield {"case": "out of memory", "left out": "needs a GPU"}
            return
        trainer = trainer_of(activation_checkpointing=False)
        batch = next(trainer.steps.batches(0))[0].to(device)
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 0.3 * estimate) / total)
        try:
            trainer.train_step([batch])
            said = "no error"
        except DenseCLIError as error:
            said = f"{error} {error.hint}"
        yield {"case": "out of memory", "said": said}


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


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="tiny models, in this process")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.only:
        run_section(args.sections[0], args, Path(args.only[0]), float(args.only[1]))
        return {}
    end = time.monotonic() + 60 * args.minutes
    report: dict[str, Any] = {"about": about(args), "sections": {}}
    for number, name in enumerate(args.sections):
        share = SECTIONS[name][1] / sum(SECTIONS[other][1] for other in args.sections[number:])
        started = time.monotonic()
        rows = section(name, args, share * (end - started))
        report["sections"][name] = {"seconds": time.monotonic() - started, "rows": rows}
        args.out.write_text(json.dumps(report, indent=1))
    print(table([["section", "case", "figures"], *lines(report["sections"])]))
    print(json.dumps(report["about"]))
    return report


def about(args: argparse.Namespace) -> Row:
    device = pick_device(args.device)
    packages = ("torch", "torchvision", "timm", "open_clip_torch", "pillow", "numpy")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "small": args.small,
        "minutes": args.minutes,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def section(name: str, args: argparse.Namespace, seconds: float) -> list[Row]:
    """The rows of a section, those that it had written when its time was over or it failed included."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        out.touch()
        if args.small:
            run_section(name, args, out, seconds)
        else:
            words = ["--sections", name, "--device", args.device, "--only", str(out), str(seconds)]
            try:
                # A case that was begun may end later than its section's time.
                done = subprocess.run(
                    [sys.executable, __file__, *words],
                    check=False,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=max(1, 1.2 * seconds),
                )
                why = (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else ""
            except subprocess.TimeoutExpired:
                why = "no time for the case at hand and those after it"
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        return rows if args.small or not why else [*rows, {"case": "the rest", "left out": why}]


def run_section(name: str, args: argparse.Namespace, out: Path, seconds: float) -> None:
    """Writes each row as soon as it is known."""
    with out.open("a") as file:
        try:
            for row in SECTIONS[name][0](args, Time(seconds)):
                file.write(json.dumps(finite(row)) + "\n")
                file.flush()
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            file.write(json.dumps({"case": "the rest", "left out": f"{error}".splitlines()[0]}) + "\n")


def finite(row: Row) -> Row:
    """Without figures that this machine cannot give."""
    return {name: x for name, x in row.items() if not (isinstance(x, float) and not math.isfinite(x))}


def lines(sections: dict[str, Any]) -> list[list[str]]:
    """The table's lines: of each case its figures, those that miss a goal marked."""
    named = ("side", "compiled", "method", "teacher", "precision", "case")
    found = []
    for name, about in sections.items():
        for row in about["rows"]:
            words = [str(row[key]) for key in named if key in row and key != "compiled"]
            if "compiled" in row:
                words.append("compiled" if row["compiled"] else "eager")
            figures = [figure(name, key, row) for key in row if key not in named]
            found.append([name, " ".join(words) or "-", ", ".join(figures)])
    return found


def figure(section: str, name: str, row: Row) -> str:
    value = row[name]
    if not isinstance(value, float):
        return f"{name} {value}"
    goal = GOALS.get((section, name), lambda row: 0)(row)
    return f"{name} {value:.3g}{f' ! below {goal:g}' if value < goal else ''}"


if __name__ == "__main__":
    main()
