"""The gradient of a step: that of the batches of all processes, as if they were one batch."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from densecli.core.device import Precision
from densecli.core.distributed import Distributed, whole
from densecli.train.batch import Batch
from densecli.train.recipe import Recipe


class Gradient:
    """Adds up the gradient of a recipe's loss, and what is logged of it."""

    def __init__(
        self, recipe: Recipe[Any], forward: nn.Module, precision: Precision, distributed: Distributed
    ) -> None:
        """Takes the model.

        Args:
            recipe: The model and its loss.
            forward: The model as it is called; see `Placement.place`.
            precision: The precision of the forward pass.
            distributed: The processes that train together.
        """
        self._recipe, self._forward = recipe, forward
        self._precision, self._distributed = precision, distributed

    def count(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Sums `Recipe.counts` over the batches of all processes."""
        counts = [
            {name: n * bool(batch.keys) for name, n in self._recipe.counts(batch).items()}
            for batch in batches
        ]
        return {
            name: self._distributed.add(torch.stack([each[name] for each in counts]).sum(dim=0))
            for name in counts[0]
        }

    def add(self, batch: Batch, counts: dict[str, Tensor], *, last: bool) -> dict[str, Tensor]:
        """Adds the gradient of a batch, and with the last one those of the other processes.

        Args:
            batch: A batch of this process.
            counts: See `count`.
            last: Whether it is the last one of the step.

        Returns:
            Its share of the loss and of the loss's parts, and its `samples`: scalars on the device.
        """
        ddp = self._forward if isinstance(self._forward, DistributedDataParallel) else None
        # A process without a sample of its own computes another's with weight 0.
        share = bool(batch.keys)
        with ddp.no_sync() if ddp and not last else nullcontext():
            with self._precision.autocast():
                outputs = self._recipe.forward(self._forward, batch)
            loss, parts = self._recipe.loss(outputs, batch, counts)
            (loss * share * self._distributed.world_size).backward()
        parts = {"loss": loss.detach(), **parts}
        samples = loss.new_full((), len(batch.keys), dtype=torch.float32)
        return {**{name: value * share for name, value in parts.items()}, "samples": samples}

    def values(
        self, parts: Sequence[dict[str, Tensor]], learned: dict[str, Tensor], signal: int
    ) -> tuple[dict[str, float], set[str]]:
        """Sums the shares over the batches of all processes, and adds the norm of the gradient.

        Args:
            parts: The shares of this process's batches; see `add`.
            learned: See `Recipe.learns_from`.
            signal: The signal that has asked this process to end; 0 for none.

        Returns:
            Those values with `signals`, the sum of the signals, and the names in `learned` of what is 0.
        """
        # One transfer for all numbers: each transfer waits for the device.
        numbers = self.numbers(parts, learned, signal).tolist()
        names = [*parts[0], "signals"]
        scalars, norm, left = numbers[: len(names)], numbers[len(names)], numbers[len(names) + 1 :]
        values = {**dict(zip(names, scalars, strict=True)), "grad_norm": norm}
        return values, {name for name, amount in zip(learned, left, strict=True) if not amount}

    def numbers(self, parts: Sequence[dict[str, Tensor]], learned: dict[str, Tensor], signal: int) -> Tensor:
        """On the device: the sums of the shares and of the signals, the gradient's norm, and `learned`."""
        gradients = [p.grad for p in self._recipe.model.parameters() if p.grad is not None]
        sums = torch.stack([torch.stack(list(part.values())) for part in parts]).sum(dim=0)
        sums = self._distributed.add(torch.cat([sums, sums.new_full((1,), signal)]))
        amounts = torch.stack(list(learned.values())).to(sums)
        return torch.cat([sums, whole(get_total_norm(gradients))[None], amounts])
