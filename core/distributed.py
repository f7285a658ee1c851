"""The processes that a launcher started. Each holds a copy of the model and does a part of the work."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.core.launchers import place_of

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """This process among those that a launcher started; by default it is the only one.

    Attributes:
        device: Where it computes.
        rank: Its number, counted from 0.
        world_size: Number of processes.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process has rank 0: it alone writes files and talks to the user."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wraps a model so that a backward pass averages its gradients over the processes."""
        if self.world_size == 1:
            return model
        with warnings.catch_warnings():
            # PyTorch 2.14 renames `broadcast_buffers`; older versions know no other name.
            warnings.simplefilter("ignore", FutureWarning)
            # Training changes no buffer that it reads.
            return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def add(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over the processes, in place, and returns it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def max(self, number: int) -> int:
        """The maximum of a number over the processes."""
        if self.world_size == 1:
            return number
        largest = torch.tensor(number, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest.item())

    def gather(self, value: Value) -> list[Value]:
        """Collects a value from all processes, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def gather_rows(self, own: Tensor | None) -> list[Tensor]:
        """Collects tensors from all processes, by rank, without the copies that pickling makes.

        Args:
            own: (n, ...) on `device`. n may differ between processes, and a process may have None.

        Raises:
            ValueError: No process has any.
        """
        if self.world_size == 1 and own is not None:
            return [own]
        shapes = self.gather(None if own is None else (tuple(own.shape), own.dtype))
        dtype, rest = next(((dtype, shape[1:]) for shape, dtype in filter(None, shapes)), (None, ()))
        if dtype is None:
            raise ValueError("no process has any rows")
        found = []
        for rank, shape in enumerate(shapes):
            rows = shape[0][0] if shape else 0
            part = torch.empty((rows, *rest), dtype=dtype, device=self.device)
            if rank == self.rank and own is not None:
                part = own.contiguous()
            if rows:
                dist.broadcast(part, src=rank)
            found.append(part)
        return found

    def on_rank_zero(self, call: Callable[[], Value]) -> Value:
        """Calls a function in the process of rank 0 alone.

        Returns:
            Its result, in all processes.

        Raises:
            DenseCLIError: The function raises one, in all processes.
        """
        result: list[Any] = [None]
        if self.first:
            try:
                result = [call()]
            except DenseCLIError as error:
                result = [error]
        if self.world_size > 1:
            dist.broadcast_object_list(result)
        if isinstance(result[0], DenseCLIError):
            raise result[0]
        value: Value = result[0]
        return value


def whole(tensor: Tensor) -> Tensor:
    """The whole of a DTensor, whose processes all call this; any other tensor as it is."""
    # Not by its class, whose import takes as long as torch's own.
    gather = getattr(tensor, "full_tensor", None)
    found: Tensor = gather() if gather else tensor
    return found


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a DTensor; any other tensor as it is."""
    part = getattr(tensor, "to_local", None)
    found: Tensor = part() if part else tensor
    return found


@contextmanager
def joined_processes(device: str) -> Iterator[Distributed]:
    """Joins the processes that torchrun, srun or mpirun started; without a launcher this process is alone.

    Args:
        device: See `pick_device`. On a machine with several GPUs each process takes that of its local rank.

    Raises:
        DenseCLIError: There is no such device, or the launcher does not say where the first process is.
    """
    picked = pick_device(device)
    place = place_of(os.environ)
    if place is None:
        yield Distributed(device=picked)
        return
    if picked.type == "cuda":
        # A scheduler may show each process its own GPU alone, or all of them.
        picked = pick_device(f"cuda:{place.local_rank % torch.cuda.device_count()}")
        torch.cuda.set_device(picked)
    os.environ |= {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port)}
    dist.init_process_group(
        "nccl" if picked.type == "cuda" else "gloo", rank=place.rank, world_size=place.world_size
    )
    try:
        yield Distributed(device=picked, rank=dist.get_rank(), world_size=dist.get_world_size())
    finally:
        dist.destroy_process_group()
