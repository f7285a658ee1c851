"""What a build makes, and what of it is still missing."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from models.device import pick_device
from models.scenes import IMAGE_SIZE
from pipeline.build import ShardBuilder, Unit
from pipeline.config import BuildConfig
from pipeline.sources import Item, Source, open_source
from pipeline.teachers import TeacherConfig, models_of, teacher_config
from shards import fs
from shards.errors import DenseCLIError
from shards.geometry import Canvas
from shards.regions import RegionPlan, region_plan
from shards.store import Column, Store


@dataclass(frozen=True, kw_only=True)
class Job:
    """A build without its listing: small, picklable, one and the same in the driver and every worker.

    store: as it shall be; it need not be there. targets: the teachers with their specs.
    """

    store: Store
    load: Callable[[Item], Image.Image]
    plan: RegionPlan
    targets: tuple[tuple[TeacherConfig, dict[str, Any]], ...]
    batch_size: int
    device: str

    def columns(self) -> list[Column]:
        """Images, regions and one column a teacher, whether they are there or not."""
        return self._columns(self.store.column)

    def make(self) -> list[Column]:
        """Makes the store and the columns where they are not there yet; no shard of them."""
        _open_or_make(self.store)
        return self._columns(self.store.add_column)

    def _columns(self, get: Callable[..., Column]) -> list[Column]:
        regions = get("regions", self.plan.name, self.plan.spec)
        targets = [
            get(
                "targets",
                teacher.name,
                {**spec, "regions": regions.key} if teacher.of_regions else spec,
                teacher.info(),
            )
            for teacher, spec in self.targets
        ]
        return [self.store.images, regions, *targets]

    def builder(self) -> ShardBuilder:
        """Loads the teachers, then makes the store: a teacher that fails to load leaves nothing behind."""
        teachers = [teacher.load(self.device) for teacher, _ in self.targets]
        images, regions, *targets = self.make()
        return ShardBuilder(
            canvas=Canvas(self.store.canvas),
            load=self.load,
            plan=self.plan,
            images=images,
            regions=regions,
            targets=tuple(zip(targets, teachers, strict=True)),
            batch_size=self.batch_size,
        )


def prepare(config: BuildConfig) -> tuple[Job, Source]:
    """The job and the listing it is about. Writes nothing; raises DenseCLIError for whatever cannot be."""
    names = config.teachers
    models = list(dict.fromkeys(model for name in names for model in models_of(name)))
    if stray := sorted(set(config.weights) - set(models)):
        raise DenseCLIError(
            f"There are weights for {stray[0]}, which is no teacher's model in this build.",
            hint=f"Models: {', '.join(models) or 'none'}.",
        )
    data = config.data or os.path.join(os.environ.get("DENSECLI_DATA", "data"), config.dataset)
    source = open_source(config.dataset, os.path.abspath(data), config.split, config.limit, config.seed)
    canvas = config.canvas or (IMAGE_SIZE if config.dataset == "scenes" else 512)
    store = Store(
        root=fs.absolute(config.store or os.path.join("stores", f"{config.dataset}-{canvas}")),
        dataset=source.identity,
        canvas=canvas,
        shard_sizes=tuple(_cut(len(source.items), config.shard_size)),
    )
    if fs.exists(fs.join(store.root, "store.json")):
        _open_or_make(store)
    teachers = [teacher_config(name, config) for name in dict.fromkeys(names)]
    job = Job(
        store=store,
        load=source.load,
        plan=region_plan(config.regions, fs.absolute(config.proposals) if config.proposals else ""),
        targets=tuple((teacher, teacher.spec()) for teacher in teachers),
        batch_size=config.batch_size,
        device=str(pick_device(config.device)),
    )
    return job, source


def missing_shards(columns: list[Column]) -> list[str]:
    """The shards that lack a column, in order."""
    return sorted({shard for column in columns for shard in column.missing()})


def unit_of(source: Source, shard: str, shard_size: int) -> Unit:
    """The shard with its own photos: the n-th has the n-th `shard_size` items of the listing."""
    first = int(shard) * shard_size
    return Unit(shard=shard, items=tuple(source.items[first : first + shard_size]))


def _open_or_make(store: Store) -> Store:
    return Store.create(store.root, store.dataset, store.canvas, list(store.shard_sizes))


def _cut(n: int, size: int) -> list[int]:
    return [min(size, n - first) for first in range(0, n, size)]
