"""The shard builder: fills all missing columns of a shard."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event, Lock

import numpy as np

from densecli.core.errors import Forbidden, Unreachable
from densecli.core.passed_over import NAMED
from densecli.core.prefetch import prefetch
from densecli.core.progress import Progress
from densecli.core.stage_timer import StageTimer
from densecli.core.tables import readable
from densecli.pipeline.batcher import Run
from densecli.pipeline.mask_regions import MaskRegions
from densecli.pipeline.sources import Item, Load, LoadMasks, Unreadable
from densecli.pipeline.sources.address_loader import REFUSALS
from densecli.pipeline.target_writer import TargetWriter
from densecli.pipeline.teachers import Photo, Teacher
from densecli.pipeline.unit import Report, Unit, at_photo
from densecli.shards.geometry import Canvas
from densecli.shards.joined import Record, read_joined
from densecli.shards.mask_plan import MaskCounts, MaskPlan
from densecli.shards.receipts import Receipt
from densecli.shards.region_plans import RegionPlan
from densecli.shards.regions import GridPlan, ProposalPlan
from densecli.shards.store import Column
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes

TRANSIENT_REASONS = {"forbidden", "too-slow", "unreachable", *REFUSALS}
"""Reasons for which a photo may be unreadable today and readable tomorrow, or with another option."""
MIN_PHOTOS_FOR_FAULT = 16
"""If this many photos are all unreadable for such a reason, the cause is not the photos."""
QUIET_SECONDS = 10.0
"""Seconds after which the progress of a shard's teachers is shown."""


@dataclass(frozen=True, kw_only=True)
class BuilderConfig:
    """The columns that a builder fills, and its settings.

    Attributes:
        canvas: Canvas of the store.
        load: Reads and decodes one photo.
        plan: The region plan.
        images: The column of photos.
        regions: The column of boxes.
        targets: The teachers with their columns.
        batch_size: Canvases in a batch.
        threads: Number of threads that decode, prepare and encode, in addition to the one that runs teachers.
        masks: Reads the photos' masks, if regions are made of them.
    """

    canvas: Canvas
    load: Load
    plan: RegionPlan
    images: Column
    regions: Column
    targets: Sequence[tuple[Column, Teacher]]
    batch_size: int
    threads: int = 1
    masks: LoadMasks | None = None


class ShardBuilder:
    """Builds units, two at a time: it reads the photos of one while the teachers work on the other."""

    def __init__(self, config: BuilderConfig) -> None:
        self.config = config
        self._pool = ThreadPoolExecutor(config.threads, "densecli")
        self._runs = [Run.of(teacher, column.precision) for column, teacher in config.targets]
        self._photos_turn, self._teachers_turn = Lock(), Lock()
        # Photos that wait for the teachers or the codec: a batch, and one for each thread.
        self._window = config.batch_size + config.threads

    def build(self, unit: Unit, stop: Event | None = None) -> Report:
        """Fills the missing columns of the unit's shard; finished ones are not touched.

        Args:
            unit: The shard and its photos.
            stop: Once set, the build ends soon. Each column then has the whole shard, or nothing of it.

        Raises:
            Stopped: `stop` was set.
            DenseCLIError: No photo can be reached, or a teacher fails.
        """
        config, shard, stop = self.config, unit.shard, stop or Event()
        receipts: list[Receipt] = []
        skipped_first: dict[str, list[str]] = {}
        masks: MaskCounts | None = None
        if not config.images.has(shard):
            receipts.append(self._build_images(unit, stop, skipped_first))
        if not config.regions.has(shard):
            if isinstance(config.plan, MaskPlan):
                assert config.masks
                made = MaskRegions(plan=config.plan, canvas=config.canvas, load=config.masks)
                receipt, masks = made.build(unit, config.images, config.regions, self._pool, stop)
            else:
                receipt = build_regions(config.plan, config.images, config.regions, shard)
            receipts.append(receipt)
        records = read_joined([config.images, config.regions], shard)
        writers = [
            TargetWriter(
                column,
                run,
                shard,
                batch_size=config.batch_size,
                window=self._window,
                pool=self._pool,
                stop=stop,
            )
            for (column, _), run in zip(config.targets, self._runs, strict=True)
            if not column.has(shard)
        ]
        if writers:
            receipts += self._build_targets(shard, records, writers, stop)
        skipped, seconds = Counter[str](), Counter[str]()
        for receipt in receipts:
            skipped.update(receipt.skipped)
            seconds.update(receipt.seconds)
        return Report(
            shard=shard,
            samples=len(records),
            skipped=dict(skipped),
            seconds=dict(seconds),
            skipped_first=skipped_first,
            masks=masks,
        )

    def _build_images(self, unit: Unit, stop: Event, skipped_first: dict[str, list[str]]) -> Receipt:
        """Writes the shard of photos; adds the first skipped ones by reason to `skipped_first`."""
        config = self.config
        writer, timer, skipped = ShardWriter(config.images, unit.shard), StageTimer(), Counter[str]()

        def members(item: Item) -> dict[str, bytes] | str:
            """The sample's members, or the reason why there are none."""
            with at_photo(readable(item.ref)):
                try:
                    return members_of(item)
                except Unreadable as reason:
                    return str(reason)
                except MemoryError:
                    return "out-of-memory"

        def members_of(item: Item) -> dict[str, bytes]:
            with timer("decode"):
                photo = config.load(item, config.canvas)
            with timer("resize"):
                resized = config.canvas.resize(photo.image, (photo.width, photo.height))
            with timer("encode"):
                jpg = jpg_bytes(resized)
            facts = {
                "width": photo.width,
                "height": photo.height,
                "valid": config.canvas.valid_box(photo.width, photo.height).tolist(),
                "source": readable(item.ref),
            }
            return {"jpg": jpg, "json": json_bytes(facts)}

        with self._photos_turn:
            results = prefetch(members, unit.items, threads=self._pool, window=2 * config.threads, stop=stop)
            for item, result in zip(unit.items, results, strict=True):
                if isinstance(result, str):
                    skipped[result] += 1
                    if skipped[result] <= NAMED:
                        skipped_first.setdefault(result, []).append(readable(item.ref))
                else:
                    writer.add(item.key, result)
        if not writer.keys:
            self._check_in_reach(unit, skipped)
        # Outside the lock, so that the other unit's photos are read while this shard is published.
        return writer.commit(seconds=timer.seconds, skipped=skipped)

    def _check_in_reach(self, unit: Unit, skipped: Counter[str]) -> None:
        """Raises DenseCLIError if no photo of a unit can be reached, because of a password or the network."""
        by_chance = len(unit.items) < MIN_PHOTOS_FOR_FAULT and len(self.config.images.shard_names) > 1
        if unit.items and skipped.keys() <= TRANSIENT_REASONS and not by_chance:
            kind = Unreachable if skipped.keys() & {"too-slow", "unreachable"} else Forbidden
            hints = [REFUSALS[reason] for reason in skipped if reason in REFUSALS]
            if skipped.keys() - REFUSALS.keys():
                hints.append("Check the credentials in the environment and the network.")
            raise kind(
                f"None of the {len(unit.items)} photos from {unit.items[0].ref} on could be read "
                f"({' and '.join(skipped)}).",
                hint=f"{' '.join(hints)} Then run the same command again.",
            )

    def _build_targets(
        self, shard: str, records: Sequence[Record], writers: list[TargetWriter], stop: Event
    ) -> list[Receipt]:
        """Runs the teachers on the stored JPEGs, decoded again: the very pixels that the student will get."""
        shared = StageTimer()

        def prepare(record: Record) -> tuple[Photo, list[np.ndarray]]:
            """The photo, decoded once for all teachers, and the inputs of each teacher."""
            with at_photo(record.key), shared("decode"):
                photo = Photo(
                    key=record.key,
                    image=record.image(),
                    canvas=self.config.canvas,
                    regions=record.regions(),
                    shard=records,
                )
            with at_photo(record.key):
                inputs = [writer.prepare(photo) for writer in writers]
                photo.forget()
                return photo, inputs

        with (
            self._teachers_turn,
            closing(Progress(len(records), "photos", silence=QUIET_SECONDS)) as progress,
        ):
            prepared = prefetch(prepare, records, threads=self._pool, window=self._window, stop=stop)
            for photo, inputs in shared.each("wait", prepared):
                with at_photo(photo.key):
                    for writer, of_teacher in zip(writers, inputs, strict=True):
                        writer.add(photo, of_teacher)
                progress.advance(1, f"of shard {shard}")
            for writer in writers:
                writer.finish()
        # The time that was spent for all teachers is divided equally among them.
        parts = {stage: seconds / len(writers) for stage, seconds in shared.seconds.items()}
        return [writer.commit(parts) for writer in writers]


def build_regions(plan: GridPlan | ProposalPlan, images: Column, regions: Column, shard: str) -> Receipt:
    """Writes a shard of boxes from what the images column says about its photos."""
    writer, timer = ShardWriter(regions, shard), StageTimer()
    for key, members in read_shard(images, shard):
        with timer("encode"):
            with at_photo(key):
                boxes = plan.of_photo(json.loads(members["json"]))
            npz = npz_bytes(boxes.arrays)
        writer.add(key, {"npz": npz})
    return writer.commit(seconds=timer.seconds)
