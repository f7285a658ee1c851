"""Photos that a training does not learn from: its loss on them, and how far it agrees with the teacher."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from densecli.core.device import Precision
from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.key_share import KeyRange
from densecli.shards.key_ranges import count_within
from densecli.shards.shard_table import ShardTable
from densecli.shards.store import Column
from densecli.train.batch import Batch
from densecli.train.recipe import Recipe
from densecli.train.stream import Stream
from densecli.train.trainer_config import HELD_OUT, TrainerConfig

C = TypeVar("C", bound=TrainerConfig)

PREFIX = "holdout/"
LOSS = f"{PREFIX}loss"
"""Begins the names of what is measured on held-out photos, and the name of the loss."""
BATCH = 8
"""Photos in a batch of each process."""


def measured_table(images: Column, table: ShardTable, config: TrainerConfig) -> ShardTable | None:
    """The held-out photos that are measured: about `evaluate_limit` of them, or all; None if none are.

    Args:
        images: The column of photos.
        table: The shards of the columns that the training reads.
        config: The configuration.

    Raises:
        DenseCLIError: No photo is held out.
    """
    if not config.holdout:
        return None
    photos = int(table.samples.sum())
    share = min(config.holdout, config.evaluate_limit / max(photos, 1))
    ranges = (KeyRange(HELD_OUT, 0.0, share),)
    found = replace(table, ranges=ranges, kept=count_within(images, ranges))
    if not found.kept.any():
        raise DenseCLIError(
            f"--holdout {share:g} keeps none of the {photos} photos out of the training.",
            hint="Give a larger share. Keys decide: of few photos it may be more or less.",
        )
    return found


def measuring(config: C) -> C:
    """The configuration of the loader that reads held-out photos."""
    return replace(config, batch_size=BATCH, drop_last=False)


class HoldoutMeasure:
    """The loss of a recipe on held-out photos, as if they were the one batch of a step.

    Every measurement sees the same view of the same photos, which each process reads once and then holds in
    memory.
    """

    def __init__(
        self,
        recipe: Recipe[Any],
        loader: Stream,
        share: float,
        precision: Precision,
        distributed: Distributed,
    ) -> None:
        """Takes the photos.

        Args:
            recipe: The model and its loss.
            loader: This process's share of the photos, in small batches; see `measured_table`.
            share: Share of the store's photos that are held out.
            precision: That of the steps.
            distributed: The processes that share the photos.
        """
        self._recipe, self._loader, self._precision = recipe, loader, precision
        self._distributed = distributed
        self.names: Mapping[str, bool] = {f"{PREFIX}{n}": up for n, up in recipe.measured().items()}
        self.about: Mapping[str, Any] = {}
        photos = loader.reader.table.samples.sum()
        self.notes = (
            f"About {share:.1%} of the {photos:,} photos are kept out of the training; "
            f"{len(loader):,} of them are measured.",
        )

    @cached_property
    def _batches(self) -> list[Batch]:
        return list(self._loader.batches(0))

    @cached_property
    def _counts(self) -> dict[str, Tensor]:
        """See `Recipe.loss`; the targets never change."""
        device, add = self._distributed.device, self._distributed.add
        counts = [
            {name: n * bool(batch.keys) for name, n in self._recipe.counts(batch.to(device)).items()}
            for batch in self._batches
        ]
        return {name: add(torch.stack([each[name] for each in counts]).sum(dim=0)) for name in counts[0]}

    def __call__(self) -> dict[str, float]:
        """See `Measure`."""
        own = [self._measured(batch.to(self._distributed.device)) for batch in self._batches]
        shares, agreements = zip(
            *[each for part in self._distributed.gather(own) for each in part], strict=True
        )
        values = {name: math.fsum(each[name] for each in shares) for name in shares[0]}
        for name in agreements[0]:
            total, number = (math.fsum(each[name][i] for each in agreements) for i in (0, 1))
            values |= {name: total / number} if number else {}
        return {f"{PREFIX}{name}": value for name, value in values.items()}

    def _measured(self, batch: Batch) -> tuple[dict[str, float], dict[str, list[float]]]:
        """A batch's shares of the loss and its parts, and its agreements: of each the sum and the number."""
        recipe = self._recipe
        with self._precision.autocast():
            outputs = recipe.forward(recipe.model, batch)
        loss, parts = recipe.loss(outputs, batch, self._counts)
        # A process without a photo of its own computes another's, which does not count.
        counts = bool(batch.keys)
        values = {name: value.item() * counts for name, value in {"loss": loss, **parts}.items()}
        agreed = {name: (pair * counts).tolist() for name, pair in recipe.agreement(outputs, batch).items()}
        return values, agreed
