"""What a training trains: a model and its loss."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from densecli.models.checkpoints import WeightsInfo
from densecli.train.dataloader import Batch

Outputs = TypeVar("Outputs")


class Recipe(ABC, Generic[Outputs]):
    """A model with its loss, for `train.trainer.Trainer`.

    Attributes:
        model: On its device, with what is not trained frozen.
        initial_weights: Weights that the model has before the first step.
    """

    model: nn.Module
    initial_weights: WeightsInfo

    @property
    def random_weights(self) -> bool:
        """Whether any weights involved were random, so that the results mean nothing."""
        return self.initial_weights.random

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Counts what the loss averages over in a batch: regions, tokens, images.

        Returns:
            int64 counts by any names, of the same shapes for every batch.
        """

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Runs the model on a batch; called under autocast.

        Args:
            model: `model` as it is to be called: with several processes it is wrapped in DDP.
            batch: On the model's device.
        """

    @abstractmethod
    def loss(
        self, outputs: Outputs, batch: Batch, counts: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the batch's share of the loss of its step.

        The shares of all batches of a step add up to the loss; the mean of the batches' means would be
        another number.

        Args:
            outputs: What `forward` returned for the batch.
            batch: The batch.
            counts: The sum of `counts` over all batches of the step.

        Returns:
            The share of the loss, a scalar, and further scalars to log by name.
        """

    @abstractmethod
    def resolved(self) -> dict[str, Any]:
        """Settings with nothing left to a default or to look up, as JSON values, for config.json."""

    @abstractmethod
    def export(self, folder: str, resolved: dict[str, Any]) -> str:
        """Writes the trained weights and their model card.

        Args:
            folder: Where to.
            resolved: The training's whole resolved configuration.

        Returns:
            Path of the weights.
        """

    def notes(self, samples_per_step: int) -> list[str]:
        """Sentences that a user should read before the first step.

        Args:
            samples_per_step: Samples of a step, of all processes.
        """
        return []

    def picture(self) -> np.ndarray | None:
        """(H, W, 3) uint8 picture of what the model does now, for the loggers; None where there is none."""
        return None
