"""Speed of a training step with live teachers and with stored targets, as a markdown table.

    python benchmarks/cached_vs_live.py                                     # small models, on the CPU
    python benchmarks/cached_vs_live.py --size full                         # the papers' models, on a GPU

Weights are random, which does not change the speed. A store of scenes is built first, with one view of
crops. Then three kinds of step alternate: `cached` reads photos, boxes and targets with the loader; `live`
reads photos and boxes and runs the teachers in the step; `ceiling` repeats one batch that is already on the
device. Figures are medians over the rounds. A live step crops on the device by RoIAlign, so that only the
teachers slow it down. MFU is the student's FLOP/s in a cached step as a share of the GPU's peak in dense
bf16. Memory is the peak of the storages that one step makes, plus the weights and the optimiser states.
"""

import argparse
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, repeat
from tempfile import TemporaryDirectory
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torchvision.ops import roi_align

from densecli.core.device import pick_device
from densecli.core.prefetch import prefetch
from densecli.models.flops import TRAINING, dense_forward
from densecli.models.pooling import region_pool
from densecli.pipeline.build_request import prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.teachers.base import Teacher
from densecli.pipeline.teachers.crops import CropsTeacher
from densecli.pipeline.teachers.gram import TokenTeacher
from densecli.pipeline.teachers.labels import LabelsTeacher, retrieve
from densecli.pipeline.teachers.refiner import RefinedTeacher
from densecli.scenes.vocabulary import IMAGE_SIZE
from densecli.train.batch import Batch
from densecli.train.config import TrainConfig
from densecli.train.dataloader import Loader
from densecli.train.distillation import make_trainer
from densecli.train.memory import LiveBytes


@dataclass(frozen=True, kw_only=True)
class Size:
    student: str
    pvlm: str
    vfm: str
    canvas: int
    batch_size: int


SIZES = {
    "small": Size(student="scenes-s", pvlm="scenes-pvlm", vfm="scenes-vfm", canvas=IMAGE_SIZE, batch_size=16),
    "full": Size(student="eva02-b16", pvlm="vitl14", vfm="dinov2-vitb14", canvas=512, batch_size=48),
}
# Peak FLOP/s in dense bf16 by a part of the GPU's name; the first match counts.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}
HEADINGS = (
    "method",
    "cached, images/s",
    "live, images/s",
    "cached / live",
    "of the ceiling",
    "MFU",
    "memory, MB",
    "live",
)
METHODS: Mapping[str, tuple[str, ...]] = {
    "densevlm": ("{pvlm}",),
    "clipself": ("crops-{student}",),
    "declip": ("crops-{student}", "{vfm}"),
    "r-sc-clipself": ("crops-{student}", "refiner-{student}"),
}
Target = Callable[[Batch], Tensor]
WARM_UP = 2
"""Rounds that are not counted; a network is compiled in the first."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--canvas", type=int, help="default: that of --size")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--batch-size", type=int, help="default: that of --size")
    parser.add_argument("--batches", type=int, default=4, help="number of batches in the store")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--decode", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU")
    parser.add_argument("--seconds", type=float, default=math.inf, help="most seconds of a method's rounds")
    args = parser.parse_args()
    size = SIZES[args.size]
    size = replace(size, canvas=args.canvas or size.canvas)
    args.batch_size = args.batch_size or size.batch_size
    device = pick_device(args.device)
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{name}; student {size.student}, {size.canvas} px, batch {args.batch_size}, {args.rounds} rounds\n"
    )
    print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|", flush=True)
    with TemporaryDirectory() as folder:
        for method in args.methods:
            names = [teacher.format(**vars(size)) for teacher in METHODS[method]]
            teachers = build(folder, size, names, args)
            print(row(method, folder, size, teachers, args), flush=True)


def build(folder: str, size: Size, names: list[str], args: argparse.Namespace) -> list[Teacher]:
    """Adds the columns of some teachers to the store; returns the teachers."""
    refiners = {name for name in names if name.startswith("refiner-")}
    models = {name.removeprefix("crops-").removeprefix("refiner-") for name in names} | refiners
    config = BuildConfig(
        dataset="scenes",
        split="train",
        limit=args.batch_size * args.batches,
        shard_size=args.batch_size,
        canvas=size.canvas,
        store=f"{folder}/store",
        teachers=tuple(names),
        weights=dict.fromkeys(models, "random:0"),
        views=1,
        batch_size=args.batch_size,
        device=args.device,
    )
    request, source = prepare(config)
    builder = request.builder()
    for shard in request.store.shard_names:
        builder.build(unit_of(source, shard, config.shard_size))
    return [teacher for _, teacher in builder.config.targets]


def row(method: str, folder: str, size: Size, teachers: list[Teacher], args: argparse.Namespace) -> str:
    """A line of the table."""
    found = measure(method, folder, size, teachers, args)
    figures = [f"{found['cached']:.1f}", f"{found['live']:.1f}", f"{found['cached'] / found['live']:.2f}"]
    figures += [f"{found['cached'] / found['ceiling']:.2f}", shown(found["mfu"])]
    return (
        f"| {' | '.join([method, *figures, *(f'{found[n] / 1e6:.0f}' for n in ('memory', 'live memory'))])} |"
    )


def measure(
    method: str, folder: str, size: Size, teachers: list[Teacher], args: argparse.Namespace
) -> dict[str, float]:
    """Images per second of each kind of step, and what else `HEADINGS` names; `nan` where there is no figure.

    `bare` is a forward and a backward pass of the student without a loss.
    """
    trainer = make_trainer(
        TrainConfig(
            store=f"{folder}/store",
            run=f"{folder}/{method}",
            method=method,
            student=size.student,
            weights="random:0",
            batch_size=args.batch_size,
            max_steps=10**6,
            workers=args.workers,
            decode=args.decode,
            device=args.device,
            compile=args.compile,
            theta=0.0,
        )
    )
    loader = cast(Loader, trainer.loader)
    targets = dict(target(teacher) for teacher in teachers)
    plain_loader = Loader(trainer.recipe.store, loader.regions, {}, trainer.config, decoder=loader.decoder)
    plain_loader.pinned = loader.pinned
    with (
        closing(stream(loader, trainer.device)) as stored,
        closing(stream(plain_loader, trainer.device)) as plain,
    ):
        ready = next(stored)

        def live_batch() -> Batch:
            batch = next(plain)
            with torch.inference_mode(), trainer.precision.autocast():
                outputs = {kind: target_of(batch).float() for kind, target_of in targets.items()}
            return replace(batch, targets={kind: tensor.clone() for kind, tensor in outputs.items()})

        def bare_step() -> None:
            with trainer.precision.autocast():
                dense, *_ = trainer.recipe.forward(trainer.forward, ready)
            dense.float().mean().backward()

        steps: dict[str, Callable[[], object]] = {
            "cached": lambda: trainer.train_step([next(stored)]),
            "live": lambda: trainer.train_step([live_batch()]),
            "ceiling": lambda: trainer.train_step([ready]),
            "bare": bare_step,
        }
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        deadline = time.monotonic() + args.seconds
        for number in range(args.rounds + WARM_UP):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                wait_for(trainer.device)
                if number >= WARM_UP:
                    seconds[name].append(time.perf_counter() - started)
            if number >= WARM_UP and time.monotonic() > deadline:
                break
        found = {name: args.batch_size / statistics.median(each) for name, each in seconds.items()}
        flops = TRAINING * dense_forward(size.student, size.canvas, trainer.recipe.mode).flops
        weights = 3 * sum(p.nbytes for p in trainer.recipe.model.parameters() if p.requires_grad)
        weights += sum(p.nbytes for p in trainer.recipe.model.parameters() if not p.requires_grad)
        of_teachers = sum(p.nbytes for teacher in teachers for p in network(teacher).parameters())
        return found | {
            "rounds": len(seconds["cached"]),
            "mfu": utilisation(found["cached"] * flops, trainer.device),
            "bare mfu": utilisation(found["bare"] * flops, trainer.device),
            "memory": weights + peak(steps["cached"], trainer.device),
            "live memory": weights + of_teachers + peak(steps["live"], trainer.device),
            "waits": waits(steps["ceiling"], trainer.device),
            "idle": idle(steps["cached"], trainer.device),
        }


def stream(loader: Loader, device: torch.device) -> Generator[Batch]:
    """Batches without end, each prepared while the one before is used."""
    return prefetch(next, repeat(forever(loader, device)), threads=1, window=2)


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def waits(step: Callable[[], object], device: torch.device) -> float:
    """How often a step waits for a GPU."""
    if device.type != "cuda":
        return math.nan
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in caught)


def idle(step: Callable[[], object], device: torch.device, steps: int = 3) -> float:
    """The share of some steps' time in which a GPU runs no kernel."""
    if device.type != "cuda":
        return math.nan
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        wait_for(device)
        started = time.perf_counter()
        for _ in range(steps):
            step()
        wait_for(device)
        took = (time.perf_counter() - started) * 1e6
    ranges = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == DeviceType.CUDA
    )
    busy = end = 0.0
    for start, stop in ranges:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 1 - busy / took


def forever(loader: Loader, device: torch.device) -> Iterator[Batch]:
    for epoch in count():
        for batch in loader.batches(epoch):
            yield batch.to(device)


def target(teacher: Teacher) -> tuple[str, Target]:
    """The kind of a teacher's target, and a function that computes it for the regions of a batch."""
    match teacher:
        case LabelsTeacher():

            def labels(batch: Batch) -> Tensor:
                regions = region_pool(teacher.forward(batch.images), batch.boxes, batch.batch_index)
                return retrieve(regions, teacher.text, teacher.config.tau)

            return "labels", labels
        case CropsTeacher():

            def crops(batch: Batch) -> Tensor:
                rois = torch.cat(
                    [batch.batch_index[:, None].float(), batch.boxes * batch.images.shape[-1]], 1
                )
                side = (teacher.side, teacher.side)
                return teacher.forward(roi_align(batch.images.float(), rois, side, sampling_ratio=1))

            return "crops", crops
        case RefinedTeacher():

            def refined(batch: Batch) -> Tensor:
                entry = teacher.forward(batch.images)
                return teacher.model.refine(entry, batch.boxes, batch.batch_index, teacher.config.side)

            return "refined", refined
        case TokenTeacher():
            return "gram", lambda batch: F.normalize(teacher.forward(batch.images), dim=1).permute(0, 2, 3, 1)
    raise AssertionError(teacher)


def network(teacher: Teacher) -> nn.Module:
    """The network of a teacher."""
    if isinstance(teacher, TokenTeacher):
        cells = teacher._forward.__closure__ or ()
        [model] = [cell.cell_contents for cell in cells if isinstance(cell.cell_contents, nn.Module)]
        return model
    assert isinstance(teacher, CropsTeacher | LabelsTeacher | RefinedTeacher)
    return teacher.model


def utilisation(flops: float, device: torch.device) -> float:
    """FLOP/s as a share of the device's peak; nan where that is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((flops / peak for part, peak in PEAKS.items() if part in name), math.nan)


def shown(share: float) -> str:
    """A share, or a dash for none."""
    return "-" if math.isnan(share) else f"{share:.2f}"


def peak(step: Callable[[], object], device: torch.device) -> int:
    """Peak bytes of the storages that a step makes."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with LiveBytes() as live:
        step()
    found: int = live.peak
    return found


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
    main()
