"""What a build will cost before it is paid for: bytes, FLOPs, hours, and when it has paid for itself.

Bytes come of building a sample of the photos in memory, by the very code of the build; only the teachers do
not speak: what they would say has a size that is known. FLOPs come of their architectures.
"""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import torch

from densecli.core.device import pick_device
from densecli.core.tables import size as as_size
from densecli.core.tables import table
from densecli.models.flops import TRAINING, student_forward
from densecli.models.student import load_student
from densecli.pipeline.build_request import BuildRequest, cut, prepare
from densecli.pipeline.config import BuildConfig, PlanConfig
from densecli.pipeline.sample import Sample, column_bytes, take_sample
from densecli.pipeline.teachers import models_of
from densecli.shards.datasets import DATASETS
from densecli.shards.keys import canonical_json
from densecli.shards.kinds import kind_of_spec


def plan(config: PlanConfig) -> dict[str, Any]:
    """The plan as JSON values; writes nothing.

    `photos`, `bytes` in all, `uncertainty` (relative half-width of the 95 % interval that the sample leaves),
    `skipped` (share of the sample), `columns` (kind, name, bytes), `index_bytes` of what is kept of the
    listing, `cpu_hours` of reading and writing photos; `teachers` (name, TFLOP and GPU hours of the build and
    of an epoch live, 0 where the training does not read it), `student` (name, TFLOP and GPU hours of an
    epoch), `epochs`, `break_even` (in epochs and in trainings). Raises DenseCLIError.
    """
    build = config.build if config.calibrate else _without_weights(config.build)
    job, source = prepare(replace(build, dry_run=True))
    sizes = job.store.shard_sizes if config.photos is None else tuple(cut(config.photos, build.shard_size))
    n = sum(sizes)
    sample = take_sample(job, source, config.samples, ask=config.calibrate)
    readable = n * sample.samples / len(sample.places)
    columns, spread = column_bytes(sample, sizes, exact=config.photos is None)
    documents = [canonical_json({"key": c.key, "spec": c.spec, "info": c.info}) for c in job.columns()[1:]]
    for column, document in zip(columns[1:], documents, strict=True):
        column["bytes"] += len(document) + 1
    store_json = len(canonical_json(replace(job.store, shard_sizes=sizes).document())) + 1
    read = sum((Counter(r.seconds) for receipts in sample.receipts[:2] for r in receipts), Counter[str]())

    student = config.student or DATASETS[build.dataset].student
    side = config.image_size or job.store.canvas
    flops = TRAINING * student_forward(student, side).flops * readable
    speeds = _speeds(sample, config.tflops, config.calibrate)
    student_speed = config.tflops * 1e12
    if config.calibrate:
        student_speed = _student_speed(student, side, job)
    live_ones = [
        t.name
        for t, spec in job.targets
        if config.reads is None or kind_of_spec(spec).read_kind in config.reads
    ]
    teachers: list[dict[str, Any]] = [
        {
            "name": name,
            "tflop": once * readable / 1e12,
            "gpu_hours": once * readable / speeds[name] / 3600,
            "epoch_tflop": visit * readable * (name in live_ones) / 1e12,
            "epoch_gpu_hours": visit * readable * (name in live_ones) / speeds[name] / 3600,
        }
        for name, (once, visit) in sample.costs.items()
    ]
    live = sum(t["epoch_gpu_hours"] for t in teachers)
    even = sum(t["gpu_hours"] for t in teachers) / live if live else None
    epochs = config.seen / readable if config.seen else config.epochs
    index = round(source.index_bytes * n / len(source.items))
    return {
        "photos": n,
        "sampled": len(sample.places),
        "skipped": 1 - sample.samples / len(sample.places),
        "bytes": sum(column["bytes"] for column in columns) + store_json + index,
        "uncertainty": spread * (1 - len(sample.places) / n) ** 0.5,
        "columns": columns,
        "index_bytes": index,
        "cpu_hours": sum(read.values()) / len(sample.places) * n / 3600,
        "measured": config.calibrate,
        "tflops": config.tflops,
        "device": job.device,
        "teachers": teachers,
        "student": {
            "name": student,
            "epoch_tflop": flops / 1e12,
            "epoch_gpu_hours": flops / student_speed / 3600,
        },
        "epochs": epochs,
        "break_even": {"epochs": even, "trainings": even / epochs} if even else None,
    }


def _without_weights(build: BuildConfig) -> BuildConfig:
    """The same build by teachers that have no weights: theirs cost neither bytes nor FLOPs."""
    return replace(build, weights={model: "random:0" for name in build.teachers for model in models_of(name)})


def _speeds(sample: Sample, tflops: float, calibrate: bool) -> dict[str, float]:
    """FLOPs a second of each teacher."""
    if not calibrate:
        return dict.fromkeys(sample.costs, tflops * 1e12)
    seconds = [sum(r.seconds["teacher"] for r in receipts) for receipts in sample.receipts[2:]]
    return {
        name: once * sample.samples / spent
        for (name, (once, _)), spent in zip(sample.costs.items(), seconds, strict=True)
    }


def _student_speed(student: str, side: int, job: BuildRequest, steps: int = 3) -> float:
    """FLOPs a second of a training step, the fastest of some; random weights are as fast as any."""
    device = pick_device(job.device)
    model, _ = load_student(student, "random:0", device)
    canvases = torch.zeros(job.batch_size, 3, job.store.canvas, job.store.canvas, device=device)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            model(model.prepare(canvases, side=side)).float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return TRAINING * student_forward(student, side).flops * job.batch_size / min(seconds)


def report(planned: dict[str, Any]) -> str:
    """`plan` in print."""
    n, student, even, epochs = (planned[name] for name in ("photos", "student", "break_even", "epochs"))
    doubt = f", give or take {planned['uncertainty']:.1%}" if planned["uncertainty"] else ""
    sizes = {c["name"]: c["bytes"] for c in planned["columns"]}
    if planned["index_bytes"]:
        sizes["listing"] = planned["index_bytes"]
    columns = [[name, as_size(size), as_size(size / n)] for name, size in sizes.items()]
    speed = f"measured on {planned['device']}" if planned["measured"] else f"at {planned['tflops']:g} TFLOP/s"
    work = [_work(f"{t['name']}, once", t["tflop"], t["gpu_hours"]) for t in planned["teachers"]]
    read = [teacher for teacher in planned["teachers"] if teacher["epoch_tflop"]]
    work += [
        _work(f"{who['name']}{as_what}, an epoch", who["epoch_tflop"], who["epoch_gpu_hours"])
        for who, as_what in [(student, " (student)"), *((teacher, " live") for teacher in read)]
    ]
    lines = [
        f"{n} photos: {as_size(planned['bytes'])}{doubt} ({planned['sampled']} photos looked at, "
        f"{planned['skipped']:.1%} unreadable)",
        "",
        table([["column", "bytes", "a photo"], *columns]),
        "",
        f"To decode, resize, encode and write the photos: {planned['cpu_hours']:.2f} core hours.",
        "",
        table([["work", "TFLOP", f"GPU hours {speed}"], *work]),
    ]
    if even:
        alone = student["epoch_gpu_hours"] * epochs
        live = alone + sum(t["epoch_gpu_hours"] for t in read) * epochs
        lines += [
            "",
            f"The cache has paid for itself after {even['epochs']:.1f} epochs, "
            f"{even['trainings']:.2f} of a training of {epochs:.3g}.",
            f"A training takes {alone:.3g} GPU hours from the store, {live:.3g} with live teachers.",
        ]
    return "\n".join(lines)


def _work(name: str, tflop: float, hours: float) -> list[str]:
    return [name, f"{tflop:,.1f}", f"{hours:,.3f}"]
