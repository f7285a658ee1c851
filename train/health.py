"""The health of a run: steps that are not finite, losses that learn from nothing, weights that overflow."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from densecli.core.distributed import Distributed, own_part
from densecli.core.errors import DenseCLIError

MAX_EMPTY_STEPS = 20
"""Steps in a row in which a loss has nothing to learn from, after which the training stops."""


class NonFiniteStep(DenseCLIError):
    """A loss or gradient is not finite and the weights were not changed, or the weights are not finite."""


@dataclass(kw_only=True)
class Health:
    """What has gone wrong in a run so far; part of its checkpoints, so that a resumed run counts on.

    Attributes:
        nonfinite_steps: Steps that were skipped because their loss or gradient was not finite.
        empty_steps: For each loss that had nothing to learn from, in how many steps in a row up to now.
    """

    nonfinite_steps: int = 0
    empty_steps: dict[str, int] = field(default_factory=dict)

    def skip(self, step: int, values: Mapping[str, float], keys: Callable[[], list[str]], most: int) -> None:
        """Counts a step that is not finite.

        Args:
            step: Its number, from 1.
            values: Its `loss` and `grad_norm`.
            keys: Its samples, of all processes.
            most: How many such steps a run may have.

        Raises:
            NonFiniteStep: There are more.
        """
        if self.nonfinite_steps < most:
            self.nonfinite_steps += 1
            return
        name, value = "loss", values["loss"]
        if math.isfinite(value):
            name, value = "gradient", values["grad_norm"]
        raise NonFiniteStep(
            f"The {name} of step {step} is {value}; samples: {', '.join(keys())}.",
            hint="The state before this step is saved. Lower --lr, use --precision fp32, or skip "
            "such steps with --max-nonfinite-steps.",
        )

    def count_empty(
        self,
        empty: Iterable[str],
        step: int,
        total_steps: int,
        error: Callable[[str, int], DenseCLIError],
    ) -> None:
        """Counts the losses of a step that had nothing to learn from.

        Args:
            empty: Their names; all others begin to count anew.
            step: Number of the step, from 1.
            total_steps: Steps of the training.
            error: The error for a loss and its number of steps.

        Raises:
            DenseCLIError: There were `MAX_EMPTY_STEPS` such steps in a row, or only such steps in all.
        """
        self.empty_steps = {name: self.empty_steps.get(name, 0) + 1 for name in empty}
        for name, steps in self.empty_steps.items():
            if steps >= MAX_EMPTY_STEPS or steps == step == total_steps:
                raise error(name, steps)

    def state(self) -> dict[str, Any]:
        """Its entries of a checkpoint."""
        return {"nonfinite_steps": self.nonfinite_steps, "empty_steps": dict(self.empty_steps)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "Health":
        """The health in a checkpoint; those of version 0.1 have no `empty_steps`."""
        return cls(nonfinite_steps=state["nonfinite_steps"], empty_steps=dict(state.get("empty_steps", {})))


def check_weights(weights: Iterable[Tensor], step: int, distributed: Distributed) -> None:
    """Raises NonFiniteStep for weights that a step of finite loss and gradient has made infinite.

    Args:
        weights: The state of the model.
        step: The step.
        distributed: The processes, which all call this: each checks what it holds.
    """
    parts = [own_part(weight) for weight in weights]
    tensors = [part for part in parts if part.is_floating_point() and part.numel()]
    # The largest of each: one transfer for all, and no sum that could overflow.
    largest = torch.stack([tensor.abs().max().float() for tensor in tensors]).max().item()
    if distributed.max(int(not math.isfinite(largest))):
        raise NonFiniteStep(
            f"The weights are not finite after step {step}: a step was too large.",
            hint="They are not saved, and earlier checkpoints are kept. Lower --lr, and start again with "
            "--resume overwrite.",
        )
