"""Recipes: a model and its loss, which the trainer trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import WeightsInfo
from densecli.train.batch import Batch

Outputs = TypeVar("Outputs")


class Recipe(ABC, Generic[Outputs]):
    """A model with its loss, for `train.trainer.Trainer`.

    Attributes:
        model: The model on its device; parameters that are not trained are frozen.
        initial_weights: The source of its initial weights.
        units: Parts of the model whose weights are gathered one after the other, if it is divided among the
            processes (`train.sharding`); without any it is not.
        filled_to: `forward` fills batches up to so many samples, because a compiled model should see one
            shape; 0 leaves them as they are.
    """

    model: nn.Module
    initial_weights: WeightsInfo
    units: Sequence[nn.Module] = ()
    filled_to: int = 0

    @property
    def random_weights(self) -> bool:
        """Whether any weights involved were random, so that results mean nothing."""
        return self.initial_weights.random

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Counts what the loss averages over in a batch: regions, tokens, images.

        Returns:
            int64 counts under names of your choice, with the same shapes for every batch.
        """

    def learns_from(self, counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tells how much each loss of a step has to learn from.

        Args:
            counts: The sum of `counts` over all batches of the step.

        Returns:
            A scalar for each name; 0 where the step teaches nothing.
        """
        return {name: count.sum() for name, count in counts.items()}

    def nothing_to_learn(self, name: str, steps: int) -> DenseCLIError:
        """The error for a loss that had nothing to learn from in so many steps.

        Args:
            name: As in `learns_from`.
            steps: Steps in a row, up to now.
        """
        return DenseCLIError(
            f"{name} had nothing to learn from in the last {steps} steps.",
            hint="Check the columns of the store.",
        )

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Runs the model on a batch; called under autocast.

        Args:
            model: The model to call: `self.model`, which is wrapped in DDP if there are several processes.
            batch: A batch on the model's device.
        """

    @abstractmethod
    def loss(
        self, outputs: Outputs, batch: Batch, counts: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the batch's share of the loss of its step.

        The shares of all batches of a step add up to its loss, which the mean over batches would not be.

        Args:
            outputs: The outputs of `forward` for the batch.
            batch: The batch.
            counts: The sum of `counts` over all batches of the step.

        Returns:
            The share of the loss, a scalar, and other scalars to log, by name.
        """

    def measured(self) -> dict[str, bool]:
        """What `loss` and `agreement` give on held-out photos: whether a larger value is better, by name.

        What `loss` logs beside may be left out, if it is neither.
        """
        return {"loss": False}

    def agreement(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """How far the model agrees with what it learns from.

        Args:
            outputs: The outputs of `forward` for the batch.
            batch: The batch.

        Returns:
            By name the sum of what is compared over the batch, and the number of summands: (2,).
        """
        return {}

    @contextmanager
    def exported(self) -> Iterator[None]:
        """As long as the block lasts, the model has the weights that `export` would write."""
        yield

    @abstractmethod
    def resolved(self) -> dict[str, Any]:
        """The resolved settings for config.json, as JSON values: no defaults or look-ups are left."""

    @abstractmethod
    def export(self, folder: str, resolved: dict[str, Any], **about: Any) -> str:
        """Writes the trained weights and their model card.

        Args:
            folder: Folder to write to.
            resolved: The whole resolved configuration of the training.
            about: Further entries of the card, JSON values.

        Returns:
            Path of the weights.
        """

    def notes(self, samples_per_step: int) -> list[str]:
        """Sentences that a user should read before the first step.

        Args:
            samples_per_step: Samples of a step, of all processes.
        """
        return []

    def checkpoint_activations(self, on: bool) -> None:
        """Sets whether activations are computed again in the backward pass, to save memory."""
        raise DenseCLIError(
            "This training cannot compute activations again.", hint="Leave --activation-checkpointing out."
        )

    def saving_memory(self) -> list[str]:
        """Options that make a step need less of the device's memory, each with what it changes."""
        return []

    def moved(self) -> float | None:
        """By which share of their norm the trained weights have moved so far; None if that is not known."""
        return None

    def picture(self) -> np.ndarray | None:
        """Draws the current state of the model for the loggers: (H, W, 3) uint8, or None."""
        return None
