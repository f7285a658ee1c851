"""What a build makes, and what of it is still missing."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from densecli.core import fs
from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.shard_builder import BuilderConfig, ShardBuilder, Unit
from densecli.pipeline.sources import Index, Item, Load, Source, Unreadable, open_source
from densecli.pipeline.teachers import TeacherConfig, models_of, teacher_config
from densecli.shards.datasets import DATASETS
from densecli.shards.geometry import Canvas
from densecli.shards.regions import MaskPlan, RegionPlan, region_plan
from densecli.shards.store import Column, Store


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """A build without its listing: small, picklable, one and the same in the driver and every worker.

    store: as it shall be; it need not be there. targets: the teachers with their specs. witness: of a build
    on a cluster, a photo that every node must be able to read.
    """

    store: Store
    load: Load
    plan: RegionPlan
    targets: tuple[tuple[TeacherConfig, dict[str, Any]], ...]
    batch_size: int
    device: str
    witness: Item | None = None

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

    def builder(self, threads: int = 1) -> ShardBuilder:
        """Loads the teachers, then makes the store: a teacher that fails to load leaves nothing behind.

        threads: of this builder, beside the one that the teachers run in.
        """
        if self.witness:
            self._check_reach(self.witness)
        device = str(pick_device(self.device))
        teachers = [teacher.load(device) for teacher, _ in self.targets]
        images, regions, *targets = self.make()
        config = BuilderConfig(
            canvas=Canvas(self.store.canvas),
            load=self.load,
            plan=self.plan,
            images=images,
            regions=regions,
            targets=tuple(zip(targets, teachers, strict=True)),
            batch_size=self.batch_size,
            threads=threads,
        )
        return ShardBuilder(config)

    def _check_reach(self, witness: Item) -> None:
        hint = "Every node must find the store and the photos under the same path, or by URL."
        if not fs.exists(fs.join(self.store.root, "store.json")):
            raise DenseCLIError(f"The node {socket.gethostname()} does not see {self.store.root}.", hint=hint)
        try:
            self.load(witness, Canvas(self.store.canvas))
        except Unreadable as reason:
            raise DenseCLIError(
                f"The node {socket.gethostname()} cannot read the photo {witness.ref}: {reason}.", hint=hint
            ) from reason


def prepare(config: BuildConfig) -> tuple[BuildRequest, Source]:
    """The job and the listing it is about. Raises DenseCLIError for whatever cannot be.

    Writes nothing but the index of a source's tars, and in a dry run not even that.
    """
    names = config.teachers
    models = list(dict.fromkeys(model for name in names for model in models_of(name)))
    if stray := sorted(set(config.weights) - set(models)):
        raise DenseCLIError(
            f"There are weights for {stray[0]}, which is no teacher's model in this build.",
            hint=f"Models: {', '.join(models) or 'none'}.",
        )
    if ":" in config.device:
        raise DenseCLIError(
            f"build-shards cannot be told which GPU to use, as {config.device!r} does: Ray chooses it.",
            hint="Give cuda, and name the GPUs it may choose from in CUDA_VISIBLE_DEVICES.",
        )
    plan = region_plan(
        config.regions,
        proposals=fs.absolute(config.proposals) if config.proposals else "",
        min_iou=config.min_iou,
        min_stability=config.min_stability,
    )
    teachers = [teacher_config(name, config) for name in dict.fromkeys(names)]
    canvas = config.canvas or DATASETS[config.dataset].canvas
    root = fs.absolute(config.store or os.path.join("stores", f"{config.dataset}-{canvas}"))
    data = config.data or os.path.join(
        os.path.expanduser(os.environ.get("DENSECLI_DATA", "data")), config.dataset
    )
    source = open_source(
        config.dataset,
        fs.absolute(data),
        config.split,
        config.limit,
        config.seed,
        Index(folder=fs.join(root, "index", config.dataset), save=not config.dry_run),
    )
    if isinstance(plan, MaskPlan) and not source.has_masks:
        raise DenseCLIError(
            f"The data set {config.dataset} at {data} has no masks to take regions from.",
            hint="Use --dataset sa1b with its annotations, or another region plan (--regions).",
        )
    store = Store(
        root=root,
        dataset=source.identity,
        canvas=canvas,
        shard_sizes=tuple(cut(len(source.items), config.shard_size)),
    )
    if fs.exists(fs.join(store.root, "store.json")):
        _open_or_make(store)
    job = BuildRequest(
        store=store,
        load=source.load,
        plan=plan,
        targets=tuple((teacher, teacher.spec()) for teacher in teachers),
        batch_size=config.batch_size,
        # The GPUs of a cluster are not the driver's.
        device=config.device if config.ray_address else str(pick_device(config.device)),
    )
    return job, source


def unit_of(source: Source, shard: str, shard_size: int) -> Unit:
    """The shard with its own photos: the n-th has the n-th `shard_size` items of the listing."""
    first = int(shard) * shard_size
    return Unit(shard=shard, items=tuple(source.items[first : first + shard_size]))


def _open_or_make(store: Store) -> Store:
    return Store.create(store.root, store.dataset, store.canvas, list(store.shard_sizes))


def cut(n: int, size: int) -> list[int]:
    return [min(size, n - first) for first in range(0, n, size)]
