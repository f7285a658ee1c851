"""The same student step with its teachers live and from the store, as a markdown table.

    python benchmarks/cached_vs_live.py                                     # small models, on the CPU
    python benchmarks/cached_vs_live.py --size full                         # the papers' own, on a GPU

Weights are random: they cost what others do. A store of scenes is built first, with one view of crops. Then
three kinds of step take turns, round after round: `cached` reads photos, boxes and targets with the loader;
`live` reads photos and boxes and asks the teachers in the step; `ceiling` sees one batch again and again,
which is on the device already. A figure is the median over the rounds. What a live step cuts out of the
photos, it cuts on the device by RoIAlign, so nothing but the teachers is in its way. MFU is what a cached
step's products of the student are of those that the GPU could do in the time, by its maker's figure for dense
bf16. Memory is the peak of what operations of one more step have alive at a time, and the weights and
optimiser states beside it.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, repeat
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from context_memory import LiveBytes
from torch import Tensor, nn
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
from densecli.train.dataloader import Batch, Loader
from densecli.train.distillation import TrainConfig, make_trainer


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
# FLOP/s in dense bf16, by what a GPU's name has in it; the first that fits.
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--canvas", type=int, help="in place of the size's own")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--batch-size", type=int, help="in place of the size's own")
    parser.add_argument("--batches", type=int, default=4, help="in the store")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--decode", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--device", default="auto")
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
    job, source = prepare(config)
    builder = job.builder()
    for shard in job.store.shard_names:
        builder.build(unit_of(source, shard, config.shard_size))
    return [teacher for _, teacher in builder.config.targets]


def row(method: str, folder: str, size: Size, teachers: list[Teacher], args: argparse.Namespace) -> str:
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
            theta=0.0,
        )
    )
    loader = trainer.loader
    targets = dict(target(teacher) for teacher in teachers)
    bare = Loader(trainer.recipe.store, loader.regions, {}, trainer.config, decoder=loader.decoder)
    stored, plain = (
        prefetch(next, repeat(forever(each, trainer.device)), threads=1, window=2) for each in (loader, bare)
    )
    ready = next(stored)

    def ask_live() -> Batch:
        batch = next(plain)
        with torch.inference_mode(), trainer.precision.autocast():
            said = {kind: ask(batch).float() for kind, ask in targets.items()}
        return replace(batch, targets={kind: tensor.clone() for kind, tensor in said.items()})

    steps = {"cached": partial(next, stored), "live": ask_live, "ceiling": lambda: ready}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(args.rounds + 2):
        for name, batch_of in steps.items():
            started = time.perf_counter()
            trainer.train_step([batch_of()])
            # Two rounds to warm up.
            if number >= 2:
                seconds[name].append(time.perf_counter() - started)
    speed = {name: args.batch_size / statistics.median(each) for name, each in seconds.items()}
    weights = 3 * sum(p.nbytes for p in trainer.recipe.model.parameters() if p.requires_grad)
    weights += sum(p.nbytes for p in trainer.recipe.model.parameters() if not p.requires_grad)
    of_teachers = sum(p.nbytes for teacher in teachers for p in network(teacher).parameters())
    memory = {
        "cached": weights + peak(lambda: trainer.train_step([next(stored)]), trainer.device),
        "live": weights + of_teachers + peak(lambda: trainer.train_step([ask_live()]), trainer.device),
    }
    cached, live, ceiling = speed.values()
    flops = TRAINING * dense_forward(size.student, size.canvas, trainer.recipe.mode).flops
    figures = [f"{cached:.1f}", f"{live:.1f}", f"{cached / live:.2f}", f"{cached / ceiling:.2f}"]
    figures.append(utilisation(cached * flops, trainer.device))
    return f"| {' | '.join([method, *figures, *(f'{n / 1e6:.0f}' for n in memory.values())])} |"


def forever(loader: Loader, device: torch.device) -> Iterator[Batch]:
    for epoch in count():
        for batch in loader.batches(epoch):
            yield batch.to(device)


def target(teacher: Teacher) -> tuple[str, Target]:
    """The kind of a teacher's column, and the same said live for the regions of a batch."""
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
    """Its weights."""
    if isinstance(teacher, TokenTeacher):
        [model] = [
            cell.cell_contents
            for cell in teacher._forward.__closure__
            if isinstance(cell.cell_contents, nn.Module)
        ]
        return model
    return teacher.model


def utilisation(flops: float, device: torch.device) -> str:
    """Of FLOP/s those that the device could do."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peaks = [peak for part, peak in PEAKS.items() if part in name]
    return f"{flops / peaks[0]:.2f}" if peaks else "-"


def peak(step: Callable[[], object], device: torch.device) -> int:
    """Bytes alive at a time of what operations of the step make."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes() as live:
        step()
    return live.peak


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
    main()
