"""A model divided among the processes that train it (torch's fully_shard).

Each process holds a part of every weight, of its gradient and of its moments; the weights of a block are
gathered when it runs. Checkpoints and exports are whole, as those of any other training.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from densecli.core.distributed import Distributed, whole
from densecli.core.errors import DenseCLIError

State = dict[str, Any]


def shard(model: nn.Module, units: Sequence[nn.Module], device: torch.device, *, compiled: bool) -> None:
    """Divides a model among all processes, in place: its parameters are DTensors afterwards.

    Args:
        model: The whole model.
        units: Parts of it whose weights are gathered one after the other; those of the rest are gathered at
            once.
        device: The device of this process.
        compiled: Whether each part of it is compiled, and the rest is not.

    Raises:
        DenseCLIError: A parameter that is trained has no dimension to divide it along.
    """
    scalars = {name: p for name, p in model.named_parameters() if not p.ndim}
    if trained := [name for name, p in scalars.items() if p.requires_grad]:
        raise DenseCLIError(
            f"--fsdp cannot divide a single number, as which {trained[0]} is trained.",
            hint="Give it the shape (1,), or leave --fsdp out.",
        )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for part in (*units, model):
        fully_shard(part, mesh=mesh, ignored_params=set(scalars.values()))
    for unit in units if compiled else ():
        # Not the unit itself: its weights are gathered outside of what is compiled.
        unit.forward = torch.compile(unit.forward, dynamic=False)


def gathered(state: State, distributed: Distributed) -> State:
    """The state of a divided model or of its optimiser with whole tensors; all processes call it.

    Args:
        state: Nested dicts and lists.
        distributed: The processes. That of rank 0 gets the tensors, on the CPU; the others None instead.
    """

    def gather(tensor: DTensor) -> Tensor | None:
        full = tensor.full_tensor()
        return full.cpu() if distributed.first else None

    found: State = tree_map_only(DTensor, gather, state)
    return found


def spread(
    read: Callable[[], State], model: nn.Module, optimizer: torch.optim.Optimizer, distributed: Distributed
) -> State:
    """Divides a whole checkpoint as a model and its optimiser are; all processes call it.

    Args:
        read: Reads the checkpoint. Only the process of rank 0 does, so that a machine holds it once.
        model: The divided model.
        optimizer: Its optimiser.
        distributed: The processes.

    Returns:
        The checkpoint, with the entries `model` and `optimizer` divided.
    """
    weights = dict(model.state_dict())
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))

    def changed(state: State, change: Callable[[Tensor, DTensor], Tensor]) -> State:
        """A checkpoint after a change of all tensors that this process holds a part of."""

        def one(value: Any, like: Tensor | None) -> Any:
            fits = isinstance(like, DTensor) and isinstance(value, Tensor) and value.shape == like.shape
            return change(value, like) if fits else value  # type: ignore[arg-type]

        moments = {
            number: {name: one(value, parameters.get(number)) for name, value in each.items()}
            for number, each in state["optimizer"]["state"].items()
        }
        return {
            **state,
            "model": {name: one(tensor, weights.get(name)) for name, tensor in state["model"].items()},
            "optimizer": {**state["optimizer"], "state": moments},
        }

    read_whole: list[State] = []

    def outline() -> State:
        """What all processes need of it: everything but the values of these tensors."""
        read_whole.append(read())
        return changed(read_whole[0], lambda tensor, like: tensor.to("meta"))

    def divided(tensor: Tensor, like: DTensor) -> Tensor:
        # The values are those of rank 0.
        full = tensor.to(like.device) if distributed.first else torch.empty_like(tensor, device=like.device)
        return distribute_tensor(full, like.device_mesh, like.placements)

    outlined = distributed.on_rank_zero(outline)
    return changed(read_whole[0] if distributed.first else outlined, divided)


def unite(model: nn.Module, distributed: Distributed) -> None:
    """Gathers a whole model after the last step; all processes call it.

    Args:
        model: The divided model. Its weights are on the CPU afterwards, in the process of rank 0; without
            values in the others.
        distributed: The processes.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                full = whole(parameter.detach())
                full = full.cpu() if distributed.first else full.to("meta")
                module.register_parameter(name, nn.Parameter(full, requires_grad=parameter.requires_grad))
