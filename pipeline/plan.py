"""Plans a build: estimates its bytes, FLOPs and hours, and when it has paid for itself.

Bytes come from building a sample of the photos in memory with the code of the build. FLOPs follow from the
architectures of the teachers. These do not run, because the sizes of most targets are known; only labels take
more the less sure the teacher is. So where its weights are at hand, it sees a few of the photos.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from densecli.core import fs
from densecli.core.device import pick_device
from densecli.core.find import Entry
from densecli.models.flops import TRAINING, student_forward
from densecli.models.student import load_student
from densecli.pipeline.build_request import BuildRequest, data_url, prepare, shard_sizes
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.plan_bytes import column_bytes, measured_factors
from densecli.pipeline.plan_config import PlanConfig
from densecli.pipeline.plan_sample import Sample, take_sample
from densecli.pipeline.sources import find_tars
from densecli.pipeline.teachers import weights_names
from densecli.shards.datasets import defaults_for
from densecli.shards.keys import canonical_json
from densecli.shards.kinds import kind_of_spec
from densecli.shards.parted_store import read_parts
from densecli.shards.specs import FULL_PRECISION

SHARE_OF_HALF = {"fp16": 1.0, "bf16": 1.0, "tf32": 1 / 2, "fp32": 1 / 16}
"""Speed of each precision as a share of fp16's, by the peaks of an A100; an H200 has 1/2 and 1/15."""
PARTS = 3
"""Number of parts of a store of parts that are listed: their bytes stand for those of the others."""


def plan(config: PlanConfig) -> dict[str, Any]:
    """Plans a build; writes nothing.

    Returns:
        JSON values: `photos`; files that the listing has `passed_over`; `listed`, as in `Source`;
        `proposals`, see `check_proposals`; of regions that are masks `masks`, see `MaskCounts.means`;
        `sampled` of the photos; of a store of parts that were not all listed the number of `parts` and
        that of `parts_listed`; `skipped`, the unreadable share of the sample; `bytes` in total;
        `uncertainty`, the relative half-width of their 95 % interval; `columns` (kind, name, bytes);
        `most_bytes`, in total and of a column, where `bytes` are the least of a range; `measured_bytes`, how
        many times the least bytes the columns of each teacher take, where that was measured;
        `index_bytes` of the listing; `cpu_hours` to read and write photos; whether speeds are `measured`;
        `tflops`; `device`; `teachers` (name, precision, TFLOP and GPU hours of the build, and of an epoch
        with the live teacher, 0 if the training does not read it); `student` (name, TFLOP and GPU hours of an
        epoch); `epochs`; `break_even`, in epochs and in trainings.

    Raises:
        DenseCLIError: The build cannot be prepared, or no photo of the sample can be read.
    """
    build = config.build if config.calibrate else _on_gpu(_without_weights(config.build))
    parts = _sampled_parts(build)
    request, source = prepare(replace(build, dry_run=True), parts.tars if parts else None)
    if parts and config.photos is None:
        photos = round(len(source.items) * parts.times)
        config = replace(config, photos=photos if build.limit is None else min(photos, build.limit))
    sizes = request.store.shard_sizes
    if config.photos is not None:
        sizes = tuple(shard_sizes(config.photos, build.shard_size))
    n = sum(sizes)
    sample = take_sample(request, source, config.samples, run_teachers=config.calibrate)
    listed = len(sample.places)
    readable = n * sample.samples / listed
    factors = {} if config.calibrate else measured_factors(config, request, source, sample)
    columns, spread = column_bytes(sample, sizes, factors, exact=config.photos is None)
    documents = [
        canonical_json({"key": c.key, "spec": c.spec, "info": c.info}) for c in request.columns()[1:]
    ]
    for column, document in zip(columns[1:], documents, strict=True):
        for size in {"bytes", "most_bytes"} & set(column):
            column[size] += len(document) + 1
    store_json = len(canonical_json(replace(request.store, shard_sizes=sizes).document())) + 1
    index = round(source.index_bytes * n / len(source.items))
    seconds = sum((Counter(r.seconds) for receipts in sample.receipts[:2] for r in receipts), Counter[str]())

    student = config.student or defaults_for(build.dataset).student
    side = config.image_size or request.store.canvas
    student_flops = TRAINING * student_forward(student, side).flops * readable
    student_speed = _student_speed(student, side, request) if config.calibrate else config.tflops * 1e12
    precisions = {t.name: spec.get("precision", FULL_PRECISION) for t, spec in request.targets}
    speeds = _speeds(sample, precisions, config.tflops, config.calibrate)
    kinds = {teacher.name: kind_of_spec(spec) for teacher, spec in request.targets}
    read = {name for name, kind in kinds.items() if config.reads is None or kind.serves(config.reads)}
    teachers: list[dict[str, Any]] = [
        {
            "name": name,
            "precision": precisions[name],
            "tflop": once * readable / 1e12,
            "gpu_hours": once * readable / speeds[name] / 3600,
            "epoch_tflop": visit * readable * (name in read) / 1e12,
            "epoch_gpu_hours": visit * readable * (name in read) / speeds[name] / 3600,
        }
        for name, (once, visit) in sample.costs.items()
    ]
    live = sum(teacher["epoch_gpu_hours"] for teacher in teachers)
    even = sum(teacher["gpu_hours"] for teacher in teachers) / live if live else None
    epochs = config.seen / readable if config.seen else config.epochs
    total = sum(column["bytes"] for column in columns) + store_json + index
    most = total + sum(column.get("most_bytes", column["bytes"]) - column["bytes"] for column in columns)
    return {
        "photos": n,
        "passed_over": source.passed.document(),
        "listed": source.listed,
        "proposals": dict(request.proposals),
        **({"masks": sample.of_regions} if sample.of_regions else {}),
        "sampled": listed,
        **({"parts": parts.number, "parts_listed": parts.listed} if parts else {}),
        "skipped": 1 - sample.samples / listed,
        "bytes": total,
        **({"most_bytes": most} if most > total else {}),
        "measured_bytes": {name: factor.mean for name, factor in factors.items()},
        "uncertainty": spread * (1 - listed / n) ** 0.5,
        "columns": columns,
        "index_bytes": index,
        "cpu_hours": sum(seconds.values()) / listed * n / 3600,
        "measured": config.calibrate,
        "tflops": config.tflops,
        "device": request.device,
        "teachers": teachers,
        "student": {
            "name": student,
            "epoch_tflop": student_flops / 1e12,
            "epoch_gpu_hours": student_flops / student_speed / 3600,
        },
        "epochs": epochs,
        "break_even": {"epochs": even, "trainings": even / epochs} if even else None,
    }


class _Parts(NamedTuple):
    """Some parts of a store of parts: their tars, how many they are of how many, and what to multiply by."""

    tars: dict[str, Entry]
    listed: int
    number: int
    times: float


def _sampled_parts(build: BuildConfig) -> _Parts | None:
    """Parts from the beginning to the end of the data, if there are more; None if all of it is listed."""
    kept = read_parts(fs.absolute(build.store_url))
    size = build.tars_per_part or (kept["tars_per_part"] if kept else None)
    if size is None:
        return None
    tars = list(find_tars(build.dataset, data_url(build), build.split).items())
    number = -(-len(tars) // size)
    if number <= PARTS:
        return None
    chosen = np.linspace(0, number - 1, PARTS).round().astype(int).tolist()
    listed = dict(tar for part in chosen for tar in tars[part * size : (part + 1) * size])
    total, here = (sum(entry.size for entry in each) for each in (dict(tars).values(), listed.values()))
    # Servers on the web may tell no sizes.
    return _Parts(listed, PARTS, number, total / here if here else len(tars) / len(listed))


def _without_weights(build: BuildConfig) -> BuildConfig:
    """The same build with random weights, which cost the same bytes and FLOPs."""
    names = [name for teacher in build.teachers for name in weights_names(teacher).values()]
    return replace(build, weights=dict.fromkeys(names, "random:0"))


def _on_gpu(build: BuildConfig) -> BuildConfig:
    """The same build in the precision that a GPU has by default, whose hours are planned."""
    precision = "fp16" if build.teacher_precision == "auto" else build.teacher_precision
    return replace(build, teacher_precision=precision)


def _speeds(
    sample: Sample, precisions: Mapping[str, str], tflops: float, calibrate: bool
) -> dict[str, float]:
    """The FLOP/s of each teacher."""
    if not calibrate:
        return {name: tflops * 1e12 * SHARE_OF_HALF[precisions[name]] for name in sample.costs}
    seconds = [sum(r.seconds["teacher"] for r in receipts) for receipts in sample.receipts[2:]]
    return {
        name: once * sample.samples / spent
        for (name, (once, _)), spent in zip(sample.costs.items(), seconds, strict=True)
    }


def _student_speed(student: str, side: int, request: BuildRequest, steps: int = 3) -> float:
    """The FLOP/s of the fastest of a few training steps, with random weights."""
    device = pick_device(request.device)
    model, _ = load_student(student, "random:0", device)
    canvases = torch.zeros(request.batch_size, 3, request.store.canvas, request.store.canvas, device=device)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            model(model.prepare(canvases, side=side)).float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return TRAINING * student_forward(student, side).flops * request.batch_size / min(seconds)
