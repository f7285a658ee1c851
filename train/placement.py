"""Where the weights of a training are: each process has a copy of them all, or a part (see `sharding`)."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError

State = dict[str, Any]


class Placement(Protocol):
    """How the processes that train together hold a model, its gradients and its moments.

    Every method is called by all processes together.

    Attributes:
        whole: Whether each process holds every weight, so that it can use the model alone.
    """

    whole: bool

    def place(self, *, compiled: bool) -> nn.Module:
        """Places the model, and compiles it if that is asked for.

        Returns:
            The model as a step calls it. A backward pass averages its gradients over the processes.
        """

    def gathered(self, state: Callable[[], State]) -> State | None:
        """A state with whole tensors in the process of rank 0; None in the others.

        Args:
            state: Makes this process's state, with entries of the model and of its optimiser.
        """

    def spread(self, read: Callable[[], State], optimizer: torch.optim.Optimizer) -> State:
        """A checkpoint, whose entries `model` and `optimizer` are placed as the model is.

        Args:
            read: Reads the whole checkpoint.
            optimizer: The optimiser of the model.
        """

    def unite(self) -> None:
        """Makes the model whole after the last step, at least in the process of rank 0."""


class Copies:
    """Each process has a copy of the model."""

    whole = True

    def __init__(self, model: nn.Module, distributed: Distributed) -> None:
        self._model, self._distributed = model, distributed

    def place(self, *, compiled: bool) -> nn.Module:
        """See `Placement.place`."""
        if compiled:
            self._model.compile(dynamic=False)
        return self._distributed.wrap(self._model)

    def gathered(self, state: Callable[[], State]) -> State | None:
        """See `Placement.gathered`."""
        return state() if self._distributed.first else None

    def spread(self, read: Callable[[], State], optimizer: torch.optim.Optimizer) -> State:
        """See `Placement.spread`."""
        return read()

    def unite(self) -> None:
        """Nothing: it is whole."""


def placement_of(
    model: nn.Module, units: Sequence[nn.Module], distributed: Distributed, *, watched: bool
) -> Placement:
    """How a model is placed.

    Args:
        model: The whole model.
        units: Parts of it that are divided among the processes; empty if each has a copy.
        distributed: The processes.
        watched: Whether the model is measured while it trains.

    Raises:
        DenseCLIError: A model that is to be divided is measured, or there is one process alone.
    """
    if not units:
        return Copies(model, distributed)
    if watched:
        raise DenseCLIError(
            "A model that --fsdp divides cannot be measured while it trains.",
            hint="Leave out what is to be measured, such as --holdout, and measure afterwards with "
            "densecli evaluate.",
        )
    if distributed.world_size == 1:
        raise DenseCLIError(
            "--fsdp divides a model among processes, and there is only one.",
            hint="Leave it out, or start several: torchrun --nproc-per-node N --no-python -- densecli train "
            "...",
        )
    # Other trainings do not wait for this import.
    from densecli.train.sharding import Parts

    return Parts(model, units, distributed)
