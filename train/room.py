"""The room in a GPU's memory for a step: said before the first one, and made where there is too little."""

from typing import Any

import torch

from densecli.core.device import Precision, free_bytes
from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.progress import say
from densecli.train.batch import Batch
from densecli.train.memory import gigabytes, held_apart, optimizer_bytes, step_bytes, without_values
from densecli.train.recipe import Recipe
from densecli.train.trainer_config import TrainerConfig


class Room:
    """The memory of a training's device, and what saves some of it."""

    def __init__(
        self, recipe: Recipe[Any], config: TrainerConfig, distributed: Distributed, precision: Precision
    ) -> None:
        """Looks at the model, which is not divided yet.

        Args:
            recipe: The model and its loss.
            config: The configuration.
            distributed: The processes that train together.
            precision: The precision of the forward pass.
        """
        self._recipe, self._config, self._distributed = recipe, config, distributed
        self._precision = precision
        self._moments = optimizer_bytes(recipe.model)
        self._outline = without_values(recipe.model) if recipe.units else None
        self._apart = held_apart(recipe.model, recipe.units, distributed.world_size)

    def make(self, batch: Batch, optimizer: torch.optim.Optimizer, *, compiled: bool) -> None:
        """Says how much of a GPU's memory a step takes, and saves some of it where it must.

        Args:
            batch: A batch on the device.
            optimizer: It makes its moments in the first step, if it has none yet.
            compiled: Whether the model is compiled, and takes less than is known.
        """
        device = self._distributed.device
        free = free_bytes(device)
        if free is None:
            return
        moments = 0 if optimizer.state else self._moments
        needed = self._needed(batch, moments)
        takes = f"A step takes {'at most ' if compiled else 'about '}{gigabytes(needed)}"
        there = f"the {gigabytes(free)} that are free on {device}"
        if not self._distributed.max(int(needed > free)):
            self._say(f"{takes} of {there}.")
            return
        if self._config.activation_checkpointing is None and not self._recipe.units:
            self._recipe.checkpoint_activations(True)
            needed = self._needed(batch, moments)
            there += (
                f". So activations are computed again in the backward pass: {gigabytes(needed)}, and slower"
            )
        self._say(f"{takes}, more than {there}.")
        if needed > free and (ways := self._ways()):
            self._say(f"This may not fit. Try {'; or '.join(ways)}.")

    def _needed(self, batch: Batch, moments: int) -> int:
        step = step_bytes(self._recipe, batch, self._precision, self._outline)
        if self._outline is None:
            return moments + step
        return moments // self._distributed.world_size + step + self._apart

    def error(self) -> DenseCLIError:
        """The error for a step that did not fit."""
        ways = self._ways()
        return DenseCLIError(
            f"{self._distributed.device} has too little memory to train on {self._config.batch_size} photos "
            "at a time.",
            hint=f"Try {'; or '.join(ways)}." if ways else "Use a device with more memory.",
        )

    def _ways(self) -> list[str]:
        size, accumulate = self._config.batch_size, self._config.accumulate
        halved = f"--batch-size {size // 2} --accumulate {2 * accumulate}"
        same = "gives the same steps" if size % 2 == 0 else "gives steps of almost as many photos"
        return [f"{halved}, which {same}"] * (size > 1) + self._recipe.saving_memory()

    def _say(self, sentence: str) -> None:
        if self._distributed.first:
            say(sentence)
