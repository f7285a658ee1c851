"""Distillation: a student learns from the target columns of a store."""

from collections.abc import Callable, Sequence
from typing import Any

from densecli.core.device import pick_device, set_precision
from densecli.core.distributed import Distributed, joined_processes
from densecli.core.startup import started
from densecli.shards.parted_store import COMPARED, JOIN, PartedStore, open_store
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Column, Store
from densecli.train.columns import find_regions, find_targets
from densecli.train.config import TrainConfig
from densecli.train.dataloader import Loader
from densecli.train.distillation_recipe import Distillation
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.holdout import HoldoutMeasure, measured_table, measuring
from densecli.train.run_folder import lanes_to_continue
from densecli.train.terms import term_and_kind
from densecli.train.trainer import Trainer
from densecli.train.watch import Measure

Measures = Callable[[Distillation, Distributed], Sequence[Measure]]
"""Makes what is measured of a student while it trains, beside what --holdout measures."""


def no_more(_recipe: Distillation, _distributed: Distributed) -> Sequence[Measure]:
    """Nothing beside what --holdout measures."""
    return ()


def train(config: TrainConfig, measures: Measures = no_more) -> dict[str, Any]:
    """Trains a student, or continues its training. The processes of torchrun, srun or mpirun train together.

    Args:
        config: The configuration.
        measures: What is measured while it trains.

    Returns:
        See `Trainer.fit`.

    Raises:
        DenseCLIError: A column or file is missing, or the run folder holds a different run.
    """
    start = started()
    with joined_processes(config.device) as distributed:
        return make_trainer(config, distributed, measures).fit(start)


def make_trainer(
    config: TrainConfig, distributed: Distributed | None = None, measures: Measures = no_more
) -> "Trainer[Distillation]":
    """Builds the trainer of a student.

    Args:
        config: The configuration.
        distributed: The processes that train together; by default this one alone.
        measures: What is measured while it trains.

    Raises:
        DenseCLIError: See `train`.
    """
    distributed = distributed or Distributed(device=pick_device(config.device))
    precision = set_precision(config.precision, distributed.device)
    store, regions, targets, table, held_out = distributed.on_rank_zero(lambda: _opened(config))
    place: dict[str, Any] = {
        "views": config.views,
        "rank": distributed.rank,
        "world_size": distributed.world_size,
    }
    loader = Loader(
        store,
        regions,
        targets,
        config,
        decoder=JpegDecoder.on_gpu(store.canvas, distributed.device) if config.decode == "gpu" else None,
        lanes=lanes_to_continue(config, distributed),
        table=table,
        **place,
    )
    recipe = Distillation(config, store, regions, targets, distributed.device)
    measured = [*measures(recipe, distributed)]
    if held_out:
        few = Loader(store, regions, targets, measuring(config), lanes=1, table=held_out, **place)
        measured.append(HoldoutMeasure(recipe, few, config.holdout, precision, distributed))
    trainer = Trainer(recipe, loader, config, distributed, measured)
    if loader.decoder:
        trainer.notes += loader.decoder.notes()
    if JOIN in config.store and isinstance(store, PartedStore):
        trainer.notes += distributed.on_rank_zero(lambda: keys_twice(store))
    return trainer


def keys_twice(store: PartedStore) -> list[str]:
    """What a user should know about photos that several of the joined stores have."""
    number, example = store.keys_twice()
    if number is None:
        return [f"The stores have more than {COMPARED} photos: nothing tells whether keys occur twice."]
    if not number:
        return []
    return [f"{number} keys occur twice, such as {example}: an epoch has each of these photos."]


def _opened(
    config: TrainConfig,
) -> tuple[Store, Column, dict[str, Column], ShardTable, ShardTable | None]:
    """The store, the columns that a training reads, their shards, and those with held-out photos to measure.

    One process asks for them, for all.
    """
    store = open_store(config.store)
    regions, targets = columns_read(store, config)
    table = ShardTable.of([store.images, regions, *targets.values()], config.key_ranges)
    return store, regions, targets, table, measured_table(store.images, table, config)


def columns_read(store: Store, config: TrainConfig) -> tuple[Column, dict[str, Column]]:
    """Finds the columns that a training reads.

    Returns:
        The region plan's column, and the target columns by kind.

    Raises:
        DenseCLIError: One is missing.
    """
    losses = config.losses or config.method_preset.losses
    targets = find_targets(
        store,
        sorted({term_and_kind(loss)[1] for loss in losses}),
        teachers=config.teachers or config.preset_teachers(store.dataset["name"]),
        student=config.student,
        regions=config.regions,
        categories=config.categories,
        views=config.views,
        refiner=config.refiner,
    )
    return find_regions(store, targets, config.regions), targets
