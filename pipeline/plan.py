"""Plans a build: estimates its bytes, FLOPs and hours, and when it has paid for itself.

Bytes come from building a sample of the photos in memory with the code of the build. FLOPs follow from the
architectures of the teachers. These do not run, because the sizes of most targets are known; only labels take
more the less sure the teacher is. So where its weights are at hand, it sees a few of the photos.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch

from densecli.core import fs
from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry
from densecli.core.hub import cache_alone
from densecli.core.passed_over import in_words
from densecli.core.progress import Progress
from densecli.core.tables import size as as_size
from densecli.core.tables import table
from densecli.models.flops import TRAINING, student_forward
from densecli.models.student import load_student
from densecli.pipeline.build_request import BuildRequest, data_url, prepare, shard_sizes
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.plan_config import PlanConfig
from densecli.pipeline.sources import Source, find_tars
from densecli.pipeline.sources.index import listed_before
from densecli.pipeline.teachers import Cost, Photo, teacher_config, weights_names
from densecli.pipeline.unit import Unit
from densecli.shards.datasets import defaults_for
from densecli.shards.geometry import Canvas
from densecli.shards.joined import read_joined
from densecli.shards.keys import canonical_json
from densecli.shards.kinds import kind_of_spec
from densecli.shards.parted_store import read_parts
from densecli.shards.receipts import Receipt
from densecli.shards.specs import FULL_PRECISION
from densecli.shards.store import Column
from densecli.shards.writer import ShardWriter, npz_bytes

BLOCK_BYTES, RECORD_BYTES = 512, 10240
"""Units in which a tar grows: for a member, and for the whole file."""
SHARE_OF_HALF = {"fp16": 1.0, "bf16": 1.0, "tf32": 1 / 2, "fp32": 1 / 16}
"""Speed of each precision as a share of fp16's, by the peaks of an A100; an H200 has 1/2 and 1/15."""
PARTS = 3
"""Number of parts of a store of parts that are listed: their bytes stand for those of the others."""
CHUNK = 32
"""Number of photos of the sample that are built at a time."""


@dataclass(frozen=True)
class Sample:
    """A sample of a source's photos, after it was built.

    Attributes:
        places: Positions of the photos in the listing.
        keys: Keys of the photos.
        samples: Number of photos that could be read.
        columns: The columns that were built.
        receipts: Receipts of each column, one for each chunk of photos; none of computed boxes.
        costs: For each teacher, the mean FLOPs of a photo, once for the store and at each visit of a live
            teacher.
        most: For each teacher whose bytes depend on its outputs, the most that they can be, as a multiple of
            those in the receipts. Empty if the teachers ran.
    """

    places: np.ndarray
    keys: list[str]
    samples: int
    columns: list[Column]
    receipts: list[list[Receipt]]
    costs: dict[str, tuple[float, float]]
    most: dict[str, float]

    def photo_bytes(self) -> list[np.ndarray]:
        """(listed,) bytes of each photo in the tars of each column; 0 for one that cannot be read."""
        found = []
        for receipts in self.receipts:
            blocks = Counter[str]()
            for receipt in receipts:
                for name, (_, size) in receipt.members.items():
                    blocks[name.split(".", 1)[0]] += _blocks(size)
            found.append(np.array([blocks[key] for key in self.keys], float))
        return found


@dataclass(frozen=True)
class Factor:
    """How many times the bytes of its sample a column takes.

    Attributes:
        mean: The factor.
        error: Its standard error.
    """

    mean: float = 1.0
    error: float = 0.0


def plan(config: PlanConfig) -> dict[str, Any]:
    """Plans a build; writes nothing.

    Returns:
        JSON values: `photos`; files that the listing has `passed_over`; `listed`, as in `Source`;
        `proposals`, see `check_proposals`;
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


def take_sample(request: BuildRequest, source: Source, count: int, *, run_teachers: bool) -> Sample:
    """Builds photos from all parts of the source in memory.

    Args:
        request: Request of the whole build.
        source: Lists the photos.
        count: Number of photos.
        run_teachers: Whether to run the teachers. Otherwise their costs are computed.

    Raises:
        DenseCLIError: None of the photos can be read.
    """
    n = len(source.items)
    places = np.unique(np.linspace(0, n - 1, min(count, n)).round().astype(int))
    with (
        _in_memory(request, shard_sizes(len(places), CHUNK)) as here,
        closing(Progress(len(places), "photos")) as progress,
    ):
        builder = (here if run_teachers else replace(here, targets=())).builder()
        columns = here.make_columns()
        items = [source.items[int(place)] for place in places]
        receipts: list[list[Receipt]] = [[] for _ in columns]
        costs: dict[str, list[Cost]] = {teacher.name: [] for teacher, _ in request.targets}
        for i, shard in enumerate(here.store.shard_names):
            chunk = items[i * CHUNK : (i + 1) * CHUNK]
            builder.build(Unit(shard=shard, items=tuple(chunk)))
            _add_costs(here, columns, shard, costs, write=not run_teachers)
            for column, found in zip(columns, receipts, strict=True):
                if column.computed:
                    continue
                receipt = column.receipt(shard)
                assert receipt is not None
                found.append(receipt)
                fs.remove(column.tar_url(shard))
            progress.advance(len(chunk))
    samples = sum(receipt.samples for receipt in receipts[0])
    if not samples:
        raise DenseCLIError(
            f"None of the {len(items)} photos of the sample can be read.", hint="Check the photos."
        )
    means = {name: _means(of_photos) for name, of_photos in costs.items()}
    most = {name: _most(of_photos) for name, of_photos in costs.items() if of_photos[0].most}
    keys = [item.key for item in items]
    return Sample(places, keys, samples, columns, receipts, means, {} if run_teachers else most)


def measured_factors(
    config: PlanConfig, request: BuildRequest, source: Source, sample: Sample
) -> dict[str, Factor]:
    """How many times the least bytes the columns take, of teachers whose bytes depend on their outputs.

    Those whose weights are at hand see a few of the photos; others are left out.
    """
    teachers = []
    for name in sample.most if config.measured else ():
        # No weights: nothing to measure.
        with suppress(DenseCLIError), cache_alone():
            teachers.append(teacher_config(name, config.build))
    if not teachers:
        return {}
    with_weights = replace(request, targets=tuple((teacher, teacher.spec()) for teacher in teachers))
    found, least = (
        take_sample(with_weights, source, config.measured, run_teachers=run).photo_bytes()[2:]
        for run in (True, False)
    )
    return {
        teacher.name: _factor(bytes_[base > 0] / base[base > 0])
        for teacher, bytes_, base in zip(teachers, found, least, strict=True)
    }


def _factor(of_photos: np.ndarray) -> Factor:
    return Factor(float(of_photos.mean()), float(of_photos.std() / len(of_photos) ** 0.5))


def _means(costs: list[Cost]) -> tuple[float, float]:
    once, visit = np.mean([(cost.once, cost.visit) for cost in costs], axis=0).tolist()
    return once, visit


def _most(costs: list[Cost]) -> float:
    """The largest target as a multiple of the smallest, in the tar."""
    largest = sum(_blocks(len(npz_bytes(cost.most or cost.stored))) for cost in costs)
    return largest / sum(_blocks(len(npz_bytes(cost.stored))) for cost in costs)


def _blocks(size: int) -> int:
    """Bytes that a member takes in a tar, with its header."""
    return BLOCK_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES


@contextmanager
def _in_memory(request: BuildRequest, sizes: Sequence[int]) -> Iterator[BuildRequest]:
    """Yields the request with a store in memory, which is removed at the end of the block."""
    root = f"memory://plan-{uuid4().hex}"
    try:
        yield replace(request, store=replace(request.store, root=root, shard_sizes=tuple(sizes)))
    finally:
        fs.remove_folder(root)


def _add_costs(
    request: BuildRequest,
    columns: list[Column],
    shard: str,
    costs: dict[str, list[Cost]],
    *,
    write: bool,
) -> None:
    """Adds the costs of a shard's photos. With `write`, stores blank targets of the right size."""
    photos = [
        Photo(
            key=record.key,
            image=np.zeros((1, 1, 3), np.uint8),
            canvas=Canvas(request.store.canvas),
            regions=record.regions(),
        )
        for record in read_joined(columns[:2], shard)
    ]
    for (teacher, _), column in zip(request.targets, columns[2:], strict=True):
        writer = ShardWriter(column, shard)
        for photo in photos:
            cost = teacher.cost(photo)
            costs[teacher.name].append(cost)
            writer.add(photo.key, {"npz": npz_bytes(cost.stored)})
        if write:
            writer.commit(seconds=dict.fromkeys(("prepare", "teacher", "encode", "decode"), 1 / 3))


def column_bytes(
    sample: Sample, sizes: Sequence[int], factors: Mapping[str, Factor], *, exact: bool
) -> tuple[list[dict[str, Any]], float]:
    """Estimates the size of each column.

    Args:
        sample: The sample.
        sizes: Number of photos of each shard.
        factors: What was measured of teachers' columns, by name.
        exact: Whether the photos of the sample are among those of the shards.

    Returns:
        Kind, name and bytes (without column.json) of each column, `most_bytes` where these are the least;
        and the relative half-width of the 95 % interval of the total bytes.
    """
    n, listed = sum(sizes), len(sample.places)
    columns: list[dict[str, Any]] = []
    totals, errors = np.zeros(listed), []
    for column, receipts, known in zip(sample.columns, sample.receipts, sample.photo_bytes(), strict=True):
        if column.computed:
            columns.append({"kind": column.kind, "name": column.name, "bytes": 0})
            continue
        factor = factors.get(column.name, Factor()) if column.kind == "targets" else Factor()
        totals += known * factor.mean
        errors.append(known.mean() * factor.error)
        each = np.full(n, known.mean())
        if exact:
            each[sample.places] = known
        bare = sum(len(replace(receipt, members={}).to_json()) for receipt in receipts)
        entries = sum(len(receipt.to_json()) for receipt in receipts) - bare
        rest = len(sizes) * bare / len(receipts) + n * entries / listed
        about = {"kind": column.kind, "name": column.name, "bytes": _tars(each * factor.mean, sizes, rest)}
        if column.kind == "targets" and column.name in sample.most.keys() - factors.keys():
            about["most_bytes"] = _tars(each * sample.most[column.name], sizes, rest)
        columns.append(about)
    error = (totals.std() ** 2 / listed + sum(each**2 for each in errors)) ** 0.5
    return columns, float(1.96 * error / totals.mean())


def _tars(photos: np.ndarray, sizes: Sequence[int], rest: float) -> int:
    """Bytes of a column's tars and of the rest, from those of the photos in the tars."""
    shards = np.add.reduceat(photos, np.cumsum([0, *sizes[:-1]])) + 2 * BLOCK_BYTES
    return round(float((np.ceil(shards / RECORD_BYTES) * RECORD_BYTES).sum()) + rest)


def report(planned: dict[str, Any]) -> str:
    """Formats a plan as text."""
    n, student, even, epochs = (planned[name] for name in ("photos", "student", "break_even", "epochs"))
    doubt = f", give or take {planned['uncertainty']:.1%}" if planned["uncertainty"] else ""
    columns = [[c["name"], _range(c), _range(c, n)] for c in planned["columns"]]
    if index := planned["index_bytes"]:
        columns.append(["listing", as_size(index), as_size(index / n)])
    notes = [
        *(
            f"{name}: measured, {factor:.1f} times what a teacher takes that is sure of its boxes."
            for name, factor in planned["measured_bytes"].items()
        ),
        *(
            f"{column['name']}: a range, because labels take more the less sure the teacher is. Where its "
            "weights are, plan measures it."
            for column in planned["columns"]
            if "most_bytes" in column
        ),
    ]
    speed = f"measured on {planned['device']}" if planned["measured"] else f"at {planned['tflops']:g} TFLOP/s"
    work = [
        _work(f"{t['name']} in {t['precision']}, once", t["tflop"], t["gpu_hours"])
        for t in planned["teachers"]
    ]
    read = [teacher for teacher in planned["teachers"] if teacher["epoch_tflop"]]
    work += [
        _work(f"{who['name']}{as_what}, an epoch", who["epoch_tflop"], who["epoch_gpu_hours"])
        for who, as_what in [(student, " (student)"), *((teacher, " live") for teacher in read)]
    ]
    lines = [
        f"{n} photos: {_range(planned)}{doubt} (from a sample of {planned['sampled']}, "
        f"{planned['skipped']:.1%} unreadable)",
        *([f"Passed over in the listing: {passed}"] if (passed := in_words(planned["passed_over"])) else []),
        *([listed_before(planned["listed"])] if planned["listed"] else []),
        *([_of_parts(planned)] if "parts" in planned else []),
        "",
        table([["column", "bytes", "a photo"], *columns]),
        "",
        *(notes and [*notes, ""]),
        f"Decoding, resizing, encoding and writing the photos: {planned['cpu_hours']:.2f} core hours.",
        "",
        table([["work", "TFLOP", f"GPU hours {speed}"], *work]),
    ]
    if even:
        alone = student["epoch_gpu_hours"] * epochs
        live = alone + sum(t["epoch_gpu_hours"] for t in read) * epochs
        lines += [
            "",
            f"The store has paid for itself after {even['epochs']:.1f} epochs, "
            f"or {even['trainings']:.2f} trainings of {epochs:.3g} epochs.",
            f"A training takes {alone:.3g} GPU hours with the store and {live:.3g} with live teachers.",
        ]
    return "\n".join(lines)


def _of_parts(planned: Mapping[str, Any]) -> str:
    return (
        f"Listed {planned['parts_listed']} of {planned['parts']} parts: the number of photos is an estimate "
        "from the bytes of the tars."
    )


def _range(planned: Mapping[str, Any], n: int = 1) -> str:
    """Bytes for one of n, or the least and the most of them."""
    sizes = [planned[key] for key in ("bytes", "most_bytes") if key in planned]
    return " to ".join(as_size(size / n) for size in sizes)


def _work(name: str, tflop: float, hours: float) -> list[str]:
    return [name, f"{tflop:,.1f}", f"{hours:,.3f}"]
