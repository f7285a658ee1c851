"""The steps of a training: their number, and the batches of each."""

import math
from collections.abc import Iterator
from itertools import islice

from densecli.core.errors import DenseCLIError
from densecli.core.tables import counted
from densecli.train.batch import Batch
from densecli.train.stream import Stream
from densecli.train.trainer_config import WARMUP_STEPS, TrainerConfig


class Steps:
    """Groups the batches of a loader into steps.

    Attributes:
        samples_per_step: Samples in a step of all processes; the last step of an epoch may have fewer.
        per_epoch: Steps in an epoch.
        total: Steps of the whole training.
        warmup: Steps over which the learning rate rises.
        notes: Sentences about the steps that a user should read.
    """

    notes: tuple[str, ...]

    def __init__(self, loader: Stream, config: TrainerConfig, world_size: int) -> None:
        """Counts the steps.

        Args:
            loader: Batches of this process.
            config: The configuration.
            world_size: Number of processes.

        Raises:
            DenseCLIError: The store has too few samples for a step.
        """
        self._loader, self._accumulate = loader, config.accumulate
        self.samples_per_step = config.batch_size * world_size * config.accumulate
        full, partial = divmod(loader.steps_per_epoch, config.accumulate)
        self.per_epoch = full if config.drop_last or not partial else full + 1
        if not self.per_epoch and not config.drop_last:
            if config.photos_share < 1:
                raise DenseCLIError(
                    f"A share of {config.photos_share:g} of the store {config.store} has no photo.",
                    hint="Give a larger --photos-share.",
                )
            raise DenseCLIError(
                f"The store {config.store} holds no photo.",
                hint="densecli info says why; build a store of other photos.",
            )
        if not self.per_epoch:
            raise DenseCLIError(
                f"The store {config.store} has fewer samples than a step: {self.samples_per_step}.",
                hint="Give a smaller --batch-size, or leave out --drop-last.",
            )
        self.total = config.max_steps or self._length(config)
        self.warmup = warmup_steps(self.total) if config.warmup_steps is None else config.warmup_steps
        self.notes = ()
        if config.photos_share < 1:
            photos = int(loader.reader.table.samples.sum())
            self.notes = (f"The training reads {len(loader):,} of the {photos:,} photos.",)
        if config.warmup_steps is None and self.warmup < WARMUP_STEPS:
            over = f"over {counted(self.warmup, 'step')}" if self.warmup else "at once"
            self.notes += (
                f"The learning rate rises {over} instead of over {WARMUP_STEPS} steps, because the training "
                f"has only {counted(self.total, 'step')}.",
            )

    def _length(self, config: TrainerConfig) -> int:
        """Number of steps of `epochs` or `seen_samples`."""
        if not config.seen_samples:
            return config.epochs * self.per_epoch
        # With drop_last, an epoch has fewer samples than the store; without it, its last step has fewer.
        samples = min(len(self._loader), self.per_epoch * self.samples_per_step)
        epochs, left = divmod(config.seen_samples, samples)
        return epochs * self.per_epoch + math.ceil(left / self.samples_per_step)

    def batches(self, step: int) -> Iterator[list[Batch]]:
        """Yields this process's batches of each step after the first `step` steps."""
        while step < self.total:
            epoch, start = divmod(step, self.per_epoch)
            batches = self._loader.batches(epoch, start * self.samples_per_step)
            for _ in range(min(self.total - step, self.per_epoch - start)):
                yield list(islice(batches, self._accumulate))
                step += 1


def warmup_steps(total: int) -> int:
    """Default number of warm-up steps: that of the papers, or fewer in a short training."""
    return WARMUP_STEPS if total > WARMUP_STEPS else total // 10
