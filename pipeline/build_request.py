"""The build request: everything that workers need to build any unit of a store."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from densecli.core import fs
from densecli.core.addresses import from_environment
from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry
from densecli.core.settings import settings_of
from densecli.models.weights import same_model
from densecli.pipeline.cluster import gpus_at
from densecli.pipeline.computed_boxes import column_spec, computes_boxes
from densecli.pipeline.config import BuildConfig, WebSettings
from densecli.pipeline.mask_source import MASK_SETTINGS, with_masks
from densecli.pipeline.proposals import check_proposals
from densecli.pipeline.shard_builder import BuilderConfig, ShardBuilder
from densecli.pipeline.sources import Index, Item, Load, LoadMasks, Source, Unreadable, open_source
from densecli.pipeline.sources.cut import Cut
from densecli.pipeline.sources.index import shared_listings
from densecli.pipeline.sources.packed import part
from densecli.pipeline.sources.tars import TarLister
from densecli.pipeline.teachers import TeacherConfig, teacher_config, weights_names
from densecli.pipeline.teachers.base import with_precision
from densecli.pipeline.teachers.gram import with_method_of
from densecli.pipeline.unit import Unit
from densecli.shards.codecs import LowRank
from densecli.shards.datasets import DATASETS
from densecli.shards.geometry import Canvas
from densecli.shards.kinds import kind_of_spec
from densecli.shards.mask_plan import MaskPlan
from densecli.shards.region_plans import RegionPlan, region_plan
from densecli.shards.specs import FULL_PRECISION, TeacherSpec
from densecli.shards.store import Column, Store


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """A build without the listing of its photos: small, picklable, and the same for every worker.

    Attributes:
        store: The store, which may not exist yet.
        load: Reads and decodes one photo.
        plan: The region plan.
        targets: The teachers with the specs of their columns.
        batch_size: Canvases in a batch.
        device: A torch device, or auto.
        computed_boxes: Whether readers compute the boxes.
        proposals: See `check_proposals`.
        masks: Reads the photos' masks, if regions are made of them.
        probe: A photo that every node of a cluster must be able to read.
    """

    store: Store
    load: Load
    plan: RegionPlan
    targets: tuple[tuple[TeacherConfig, TeacherSpec], ...]
    batch_size: int
    device: str
    computed_boxes: bool
    proposals: Mapping[str, int] = field(default_factory=dict)
    masks: LoadMasks | None = None
    probe: Item | None = None

    def columns(self) -> list[Column]:
        """Returns images, regions and one column for each teacher, whether they exist or not."""
        return self._columns(self.store.column)

    def make_columns(self) -> list[Column]:
        """Creates the store and these columns, if they do not exist yet, without any shard."""
        _create(self.store)
        return self._columns(self.store.add_column)

    def _columns(self, get: Callable[..., Column]) -> list[Column]:
        regions = get("regions", self.plan.name, column_spec(self.plan, computed=self.computed_boxes))
        targets = [_target_column(get, regions, teacher, spec) for teacher, spec in self.targets]
        return [self.store.images, regions, *targets]

    def builder(self, threads: int = 1) -> ShardBuilder:
        """Loads the teachers, then creates the columns, so that a failing teacher leaves nothing behind.

        Args:
            threads: Number of the builder's threads, in addition to the one that runs its teachers.

        Raises:
            DenseCLIError: A teacher cannot be loaded, or this node cannot see the store or the photos.
        """
        if self.probe:
            self._check_reach(self.probe)
        device = str(pick_device(self.device))
        teachers = [teacher.load(device) for teacher, _ in self.targets]
        images, regions, *targets = self.make_columns()
        config = BuilderConfig(
            canvas=Canvas(self.store.canvas),
            load=self.load,
            plan=self.plan,
            masks=self.masks,
            images=images,
            regions=regions,
            targets=tuple(zip(targets, teachers, strict=True)),
            batch_size=self.batch_size,
            threads=threads,
        )
        return ShardBuilder(config)

    def _check_reach(self, probe: Item) -> None:
        hint = "Every node must find the store and the photos under the same path or URL."
        node = socket.gethostname()
        if not fs.exists(fs.join(self.store.root, "store.json")):
            raise DenseCLIError(f"The node {node} does not see {self.store.root}.", hint=hint)
        try:
            self.load(probe, Canvas(self.store.canvas))
        except Unreadable as reason:
            raise DenseCLIError(
                f"The node {node} cannot read the photo {probe.ref}: {reason}.", hint=hint
            ) from reason


def prepare(
    config: BuildConfig, tars: Mapping[str, Entry] | None = None, lister: TarLister | None = None
) -> tuple[BuildRequest, Source]:
    """Resolves the settings of a build and lists its photos.

    Writes only listings: into the index of the store or, in a dry run, where `shared_listings` says.

    Args:
        config: What to build.
        tars: The only tars to list; None for all.
        lister: Lists tars elsewhere; None for threads of this process.

    Returns:
        The request, and the source with the listing of photos.

    Raises:
        DenseCLIError: A setting is wrong, or something is missing that the build needs.
    """
    names = config.teachers
    models = list(dict.fromkeys(model for name in names for model in weights_names(name).values()))
    used = set(map(same_model, models))
    if stray := sorted(name for name in config.weights if same_model(name) not in used):
        raise DenseCLIError(
            f"Weights are given for {stray[0]}, which no teacher of this build uses.",
            hint=f"Models: {', '.join(models) or 'none'}.",
        )
    if ":" in config.device:
        raise DenseCLIError(
            f"build-shards cannot be told which GPU to use, as {config.device!r} does: Ray chooses it.",
            hint="Give cuda, and list the GPUs to use in CUDA_VISIBLE_DEVICES.",
        )
    plan = region_plan(
        config.regions,
        proposals=fs.absolute(config.proposals) if config.proposals else "",
        masks=MaskPlan(**{name: getattr(config, name) for name in MASK_SETTINGS}),
    )
    for flag, file, users in (
        ("--masks", config.masks, ("masks", "mask-boxes")),
        ("--proposals", config.proposals, ("proposals",)),
    ):
        if file and plan.name not in users:
            raise DenseCLIError(
                f"{flag} is read by --regions {' and '.join(users)}, not by {plan.name}.",
                hint=f"Add --regions {users[0]}, or leave {flag} out.",
            )
    teachers = [teacher_config(name, config) for name in dict.fromkeys(names)]
    canvas = config.canvas or DATASETS[config.dataset].canvas
    root = fs.absolute(config.store_url)
    if os.path.isfile(root):
        raise DenseCLIError(f"{root} is a file, not a store.", hint="Name a folder with --store.")
    source = list_photos(config, tars, lister)
    masks: LoadMasks | None = None
    if isinstance(plan, MaskPlan):
        plan, masks = with_masks(plan, config, source, data_url(config))
    store = Store(
        root=root,
        dataset=source.identity,
        canvas=canvas,
        shard_sizes=tuple(shard_sizes(len(source.items), config.shard_size)),
    )
    if fs.exists(fs.join(store.root, "store.json")):
        # Raises if the existing store is a different one.
        store = _create(store)
    computed = computes_boxes(store, plan, store_boxes=config.store_boxes)
    regions = store.column("regions", plan.name, column_spec(plan, computed=computed))
    request = BuildRequest(
        store=store,
        load=source.load,
        plan=plan,
        targets=tuple(_as_begun(teacher, store, regions, config) for teacher in teachers),
        batch_size=config.batch_size,
        # The GPUs of a cluster are not those of this machine.
        device=config.device if config.ray_address else str(pick_device(config.device)),
        computed_boxes=computed,
        proposals=check_proposals(plan, source, data_url(config)),
        masks=masks,
    )
    return request, source


def data_url(config: BuildConfig) -> str:
    """The place of the photos. Raises DenseCLIError for an address with credentials in it."""
    return fs.absolute(config.data or os.path.join(from_environment("DENSECLI_DATA", "data"), config.dataset))


def list_photos(
    config: BuildConfig, tars: Mapping[str, Entry] | None = None, lister: TarLister | None = None
) -> Source:
    """Lists the photos of a build, and keeps the listing. See `prepare`."""
    root = fs.absolute(config.store_url)
    return open_source(
        config.dataset,
        data_url(config),
        config.split,
        config.limit,
        config.seed,
        Index(
            folder=fs.join(root, "index", config.dataset),
            save=not config.dry_run,
            shared=shared_listings(),
            relist=config.relist,
        ),
        config.max_pixels,
        WebSettings(**{name: getattr(config, name) for name in settings_of(WebSettings)}),
        config.cut or _cut_of(root, config.dataset),
        tars,
        lister,
    )


def _target_column(
    get: Callable[..., Column], regions: Column, teacher: TeacherConfig, spec: TeacherSpec
) -> Column:
    """A teacher's column, by `Store.column` or `Store.add_column`."""
    full = {**spec, "regions": regions.key} if kind_of_spec(spec).about_boxes else spec
    return get("targets", teacher.name, full, teacher.info())


def _as_begun(
    teacher: TeacherConfig, store: Store, regions: Column, config: BuildConfig
) -> tuple[TeacherConfig, TeacherSpec]:
    """The teacher and its spec as a column of the store has them, else as they make a new one.

    The same command continues a build, although the default precision depends on the device, and although an
    earlier release may have begun the column by another method.
    """
    spec, whole = teacher.spec(), with_method_of(teacher, LowRank().spec)
    variants = [(teacher, spec)]
    if whole is not teacher:
        variants.append((whole, {**spec, "codec": cast(Any, whole).codec.spec}))
    if fs.exists(fs.join(store.root, "store.json")):
        for variant, own in variants:
            for precision in _precisions(config):
                found = with_precision(own, precision)
                column = _target_column(store.column, regions, variant, found)
                if fs.exists(fs.join(column.url, "column.json")):
                    return variant, found
    return teacher, with_precision(spec, _new_precision(config))


def _precisions(config: BuildConfig) -> Sequence[str]:
    """The precisions that a column may have, the most wanted first."""
    if config.teacher_precision != "auto":
        return (config.teacher_precision,)
    on_gpu = _device_type(config) != "cpu"
    return ("fp16", "fp32", "bf16", "tf32") if on_gpu else ("fp32", "fp16", "bf16", "tf32")


def _new_precision(config: BuildConfig) -> str:
    """The precision of a new column."""
    if config.teacher_precision != "auto":
        return config.teacher_precision
    device = _device_type(config)
    if device == "auto":
        assert config.ray_address
        device = "cuda" if gpus_at(config.ray_address, device) else "cpu"
    return "fp16" if device == "cuda" else FULL_PRECISION


def _device_type(config: BuildConfig) -> str:
    """cuda, cpu or another type; auto for a cluster that has not been asked."""
    # The GPUs of a cluster are not those of this machine.
    return config.device if config.ray_address else pick_device(config.device).type


def _cut_of(root: str, dataset: str) -> Cut:
    """The cut of the store there; of a new one, that of the data set."""
    if fs.exists(fs.join(root, "store.json")):
        return cast(Cut, Store.open(root).dataset.get("cut", "listed"))
    return cast(Cut, DATASETS[dataset].cut)


def unit_of(source: Source, shard: str, shard_size: int) -> Unit:
    """Returns the unit of a shard. The n-th shard has the n-th `shard_size` photos of the listing."""
    first = int(shard) * shard_size
    places = np.arange(first, min(first + shard_size, len(source.items)))
    return Unit(shard=shard, items=part(source.items, places))


def part_of(part: str | None, shards: int) -> tuple[int, int]:
    """Returns the first shard of a part, and the one after its last.

    Args:
        part: I/N, the I-th of N parts, counted from 1; None for all.
        shards: Number of shards of the store.

    Raises:
        DenseCLIError: It is no such text.
    """
    try:
        i, n = (int(number) for number in (part or "1/1").split("/"))
        if not 1 <= i <= n:
            raise ValueError
    except ValueError:
        raise DenseCLIError(
            f"{part!r} is no part of a build.",
            hint="Give I/N, such as --part 2/8 for the second of eight parts.",
        ) from None
    return shards * (i - 1) // n, shards * i // n


def shard_sizes(photos: int, shard_size: int) -> list[int]:
    """Returns the number of photos in each shard; all but the last are full."""
    return [min(shard_size, photos - first) for first in range(0, photos, shard_size)]


def _create(store: Store) -> Store:
    """Creates the store, or opens the existing one, if it is the same."""
    return Store.create(store.root, store.dataset, store.canvas, list(store.shard_sizes))
