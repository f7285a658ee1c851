"""The unit of work: one shard, every column of it that is missing."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event, Lock
from typing import NamedTuple

import numpy as np

from densecli.core.errors import Forbidden, Unreachable
from densecli.core.prefetch import Pending, prefetch
from densecli.core.progress import Progress
from densecli.core.stage_timer import StageTimer
from densecli.pipeline.sources import Item, Load, Unreadable
from densecli.pipeline.teachers import Batcher, Photo, Teacher
from densecli.shards.codecs import Errors, combine_errors
from densecli.shards.geometry import Canvas
from densecli.shards.reader import Record, decode_image, decode_npz, read_joined, read_shard
from densecli.shards.receipts import Receipt
from densecli.shards.regions import RegionPlan, Regions
from densecli.shards.store import Column
from densecli.shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes

# Why a photo may be unreadable today and not tomorrow; and how many at once are so by more than chance.
OUT_OF_REACH, FEW = {"forbidden", "unreachable"}, 16
# Seconds after which a shard says how far its teachers are.
SLOW = 10.0


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A shard to build and its own photos, a few out of the listing."""

    shard: str
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a unit did. skipped: photos read now, by reason. seconds: by stage, over all columns."""

    shard: str
    samples: int
    skipped: dict[str, int]
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class BuilderConfig:
    """What a builder fills. targets: the teachers with their columns.

    batch_size: canvases in a batch. threads: that decode, prepare and encode beside the teacher's own.
    """

    canvas: Canvas
    load: Load
    plan: RegionPlan
    images: Column
    regions: Column
    targets: Sequence[tuple[Column, Teacher]]
    batch_size: int
    threads: int = 1


class ShardBuilder:
    """Builds units. Of two at the same time, one has its photos read while the teachers see the other's."""

    def __init__(self, config: BuilderConfig) -> None:
        self.config = config
        self._pool = ThreadPoolExecutor(config.threads, "densecli")
        self._photos_turn, self._teachers_turn = Lock(), Lock()

    def build(self, unit: Unit, stop: Event | None = None) -> Report:
        """Fills the missing columns of the unit's shard; what is there is not touched.

        Raises Stopped soon after `stop` is set: of a column, either the whole shard is there or nothing.
        """
        config, shard, stop = self.config, unit.shard, stop or Event()
        receipts: list[Receipt] = []
        if not config.images.has(shard):
            receipts.append(self._build_images(unit, stop))
        if not config.regions.has(shard):
            receipts.append(build_regions(config.plan, config.images, config.regions, shard))
        records = read_joined([config.images, config.regions], shard)
        targets = [
            _Targets(column, teacher, shard, config, self._pool)
            for column, teacher in config.targets
            if not column.has(shard)
        ]
        if targets:
            receipts += self._build_targets(shard, records, targets, stop)
        skipped, seconds = Counter[str](), Counter[str]()
        for receipt in receipts:
            skipped.update(receipt.skipped)
            seconds.update(receipt.seconds)
        return Report(shard=shard, samples=len(records), skipped=dict(skipped), seconds=dict(seconds))

    def _build_images(self, unit: Unit, stop: Event) -> Receipt:
        config = self.config
        writer, clock, skipped = ShardWriter(config.images, unit.shard), StageTimer(), Counter[str]()

        def parts(item: Item) -> dict[str, bytes] | str:
            """The sample's members, or the reason why there is none."""
            with clock("decode"):
                try:
                    photo = config.load(item, config.canvas)
                except Unreadable as reason:
                    return str(reason)
            with clock("resize"):
                resized = config.canvas.resize(photo.image, (photo.width, photo.height))
            with clock("encode"):
                jpg = jpg_bytes(resized)
            about = {
                "width": photo.width,
                "height": photo.height,
                "valid": config.canvas.valid_box(photo.width, photo.height).tolist(),
                "source": item.ref,
            }
            if photo.masks is not None:
                about["masks"] = photo.masks
            return {"jpg": jpg, "json": json_bytes(about)}

        with self._photos_turn:
            made = prefetch(parts, unit.items, threads=self._pool, window=2 * config.threads, stop=stop)
            for item, result in zip(unit.items, made, strict=True):
                if isinstance(result, str):
                    skipped[result] += 1
                else:
                    writer.add(item.key, result)
        if not writer.keys:
            self._refuse(unit, skipped)
        # The other unit's photos are read while this one's are written.
        return writer.commit(seconds=clock.seconds, skipped=skipped)

    def _refuse(self, unit: Unit, skipped: Counter[str]) -> None:
        """Raises DenseCLIError where no photo of a unit was within reach: it is not the photos' fault."""
        by_chance = len(unit.items) < FEW and len(self.config.images.shard_names) > 1
        if unit.items and skipped.keys() <= OUT_OF_REACH and not by_chance:
            kind = Forbidden if skipped.keys() == {"forbidden"} else Unreachable
            raise kind(
                f"None of the {len(unit.items)} photos from {unit.items[0].ref} on could be read "
                f"({' and '.join(skipped)}).",
                hint="Check the credentials in the environment and the network, then run the same command "
                "again.",
            )

    def _build_targets(
        self, shard: str, records: list[Record], targets: list["_Targets"], stop: Event
    ) -> list[Receipt]:
        """Teachers see the stored JPEG, decoded again: the very pixels that the student will see."""
        shared = StageTimer()

        def prepared(record: Record) -> tuple[Photo, list[np.ndarray]]:
            """The photo, decoded once for all teachers, and the pictures that each of them looks at."""
            with shared("decode"):
                photo = Photo(
                    key=record.key,
                    image=decode_image(record.parts["images"]["jpg"]),
                    canvas=self.config.canvas,
                    regions=Regions(**decode_npz(record.parts["regions"]["npz"])),
                )
            return photo, [target.prepare(photo) for target in targets]

        with (
            self._teachers_turn,
            closing(Progress(len(records), "photos", silence=SLOW)) as progress,
        ):
            photos = prefetch(prepared, records, threads=self._pool, window=_window(self.config), stop=stop)
            for photo, pictures in shared.each("wait", photos):
                for target, of_target in zip(targets, pictures, strict=True):
                    target.add(photo, of_target)
                progress.advance(1, f"of shard {shard}")
            for target in targets:
                target.finish()
        # Each teacher's part of what was done for all of them.
        parts = {stage: seconds / len(targets) for stage, seconds in shared.seconds.items()}
        return [target.commit(parts) for target in targets]


class _Encoded(NamedTuple):
    key: str
    npz: bytes
    error: Errors


class _Targets:
    """One shard of one teacher's column in the making: targets are encoded behind the teacher's back."""

    def __init__(
        self, column: Column, teacher: Teacher, shard: str, config: BuilderConfig, pool: ThreadPoolExecutor
    ) -> None:
        self.teacher = teacher
        self.writer = ShardWriter(column, shard)
        self.clock = StageTimer()
        self.asking = Batcher(teacher, config.batch_size, self.clock)
        self.errors: list[Errors] = []
        self._window = _window(config)
        self._encoding = Pending[_Encoded](pool)

    def prepare(self, photo: Photo) -> np.ndarray:
        with self.clock("prepare"):
            return self.teacher.inputs(photo)

    def add(self, photo: Photo, pictures: np.ndarray) -> None:
        self._encode(self.asking.add(photo, pictures))

    def finish(self) -> None:
        """The teacher is done with the shard."""
        self._encode(self.asking.finish())

    def commit(self, shared: dict[str, float]) -> Receipt:
        """shared: this teacher's part of the seconds of what was done for all of them."""
        self._write(keep=0)
        seconds = self.clock.seconds
        return self.writer.commit(
            seconds={stage: seconds.get(stage, 0) + shared.get(stage, 0) for stage in {**shared, **seconds}},
            gpu_seconds=seconds["teacher"] if self.teacher.device.type == "cuda" else 0.0,
            error=combine_errors(self.errors),
        )

    def _encode(self, said: Iterable[tuple[Photo, np.ndarray]]) -> None:
        for photo, target in said:
            self._encoding.submit(self._encoded, photo, target)
            with self.clock("wait"):
                self._write(keep=self._window)

    def _encoded(self, photo: Photo, target: np.ndarray) -> _Encoded:
        with self.clock("encode"):
            arrays, error = self.teacher.encode(photo, target)
            return _Encoded(photo.key, npz_bytes(arrays), error)

    def _write(self, keep: int) -> None:
        """Hands what is encoded to the writer, in order, until `keep` are left to wait for."""
        for done in self._encoding.results(keep=keep):
            self.writer.add(done.key, {"npz": done.npz})
            self.errors.append(done.error)


def _window(config: BuilderConfig) -> int:
    """Photos to be ready, or waiting for the codec: the next batch, and one for each thread at work."""
    return config.batch_size + config.threads


def build_regions(plan: RegionPlan, images: Column, regions: Column, shard: str) -> Receipt:
    """The shard of a region plan's boxes, out of what the images column says of its photos."""
    writer, clock = ShardWriter(regions, shard), StageTimer()
    for key, parts in read_shard(images, shard):
        with clock("encode"):
            of_photo = plan.of_photo(json.loads(parts["json"]))
            data = npz_bytes({"boxes": of_photo.boxes, "offsets": of_photo.offsets})
        writer.add(key, {"npz": data})
    return writer.commit(seconds=clock.seconds)
