"""The unit of work: one shard, every column of it that is missing."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.clock import Clock
from pipeline.sources import Item, Unreadable
from pipeline.teachers import Asking, Photo, Teacher
from shards.codecs import Errors, combine_errors
from shards.geometry import Canvas
from shards.reader import Record, decode_image, decode_npz, read_joined, read_shard
from shards.receipts import Receipt
from shards.regions import RegionPlan, Regions
from shards.store import Column
from shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes


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
class ShardBuilder:
    """Builds units. targets: the teachers with their columns."""

    canvas: Canvas
    load: Callable[[Item], Image.Image]
    plan: RegionPlan
    images: Column
    regions: Column
    targets: Sequence[tuple[Column, Teacher]]
    batch_size: int

    def build(self, unit: Unit) -> Report:
        """Fills the missing columns of the unit's shard; what is there is not touched."""
        receipts: list[Receipt] = []
        if not self.images.has(unit.shard):
            receipts.append(self._build_images(unit))
        if not self.regions.has(unit.shard):
            receipts.append(build_regions(self.plan, self.images, self.regions, unit.shard))
        records = read_joined([self.images, self.regions], unit.shard)
        targets = [
            _Targets(column, teacher, unit.shard, self.batch_size)
            for column, teacher in self.targets
            if not column.has(unit.shard)
        ]
        if targets:
            receipts += self._build_targets(records, targets)
        skipped, seconds = Counter[str](), Counter[str]()
        for receipt in receipts:
            skipped.update(receipt.skipped)
            seconds.update(receipt.seconds)
        return Report(shard=unit.shard, samples=len(records), skipped=dict(skipped), seconds=dict(seconds))

    def _build_images(self, unit: Unit) -> Receipt:
        writer, clock, skipped = ShardWriter(self.images, unit.shard), Clock(), Counter[str]()
        for item in unit.items:
            with clock("decode"):
                try:
                    photo = self.load(item)
                except Unreadable as reason:
                    skipped[str(reason)] += 1
                    continue
            with clock("resize"):
                resized = self.canvas.resize(photo)
            with clock("encode"):
                jpg = jpg_bytes(resized)
            about = {
                "width": photo.width,
                "height": photo.height,
                "valid": self.canvas.valid_box(*photo.size).tolist(),
                "source": item.ref,
            }
            writer.add(item.key, {"jpg": jpg, "json": json_bytes(about)})
        return writer.commit(seconds=clock.seconds, skipped=skipped)

    def _build_targets(self, records: list[Record], targets: list["_Targets"]) -> list[Receipt]:
        """Teachers see the stored JPEG, decoded again: the very pixels that the student will see."""
        shared = Clock()
        for record in records:
            with shared("decode"):
                photo = Photo(
                    key=record.key,
                    image=decode_image(record.parts["images"]["jpg"]),
                    canvas=self.canvas,
                    regions=Regions(**decode_npz(record.parts["regions"]["npz"])),
                )
            for target in targets:
                target.add(photo)
        return [target.commit(decode=shared.seconds["decode"] / len(targets)) for target in targets]


class _Targets:
    """One shard of one teacher's column in the making."""

    def __init__(self, column: Column, teacher: Teacher, shard: str, batch_size: int) -> None:
        self.teacher = teacher
        self.writer = ShardWriter(column, shard)
        self.clock = Clock()
        self.asking = Asking(teacher, batch_size, self.clock)
        self.errors: list[Errors] = []

    def add(self, photo: Photo) -> None:
        self._write(self.asking.add(photo))

    def commit(self, decode: float) -> Receipt:
        """decode: this teacher's part of the seconds that decoding for all of them took."""
        self._write(self.asking.finish())
        gpu = self.clock.seconds["teacher"] if self.teacher.device.type == "cuda" else 0.0
        return self.writer.commit(
            seconds={**self.clock.seconds, "decode": decode},
            gpu_seconds=gpu,
            error=combine_errors(self.errors),
        )

    def _write(self, said: Iterable[tuple[Photo, np.ndarray]]) -> None:
        for photo, target in said:
            with self.clock("encode"):
                arrays, error = self.teacher.encode(photo, target)
                data = npz_bytes(arrays)
            self.writer.add(photo.key, {"npz": data})
            self.errors.append(error)


def build_regions(plan: RegionPlan, images: Column, regions: Column, shard: str) -> Receipt:
    """The shard of a region plan's boxes, out of what the images column says of its photos."""
    writer, clock = ShardWriter(regions, shard), Clock()
    for key, parts in read_shard(images, shard):
        with clock("encode"):
            of_photo = plan.of_photo(json.loads(parts["json"]))
            data = npz_bytes({"boxes": of_photo.boxes, "offsets": of_photo.offsets})
        writer.add(key, {"npz": data})
    return writer.commit(seconds=clock.seconds)
