"""The processes that torchrun started: each holds a copy of the model and a part of the work."""

import os
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

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """This process and the others; by default there are none. device: where it computes."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is this process that writes the run folder."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model`, for calls whose gradients are to be the mean over the processes."""
        if self.world_size == 1:
            return model
        # Nothing that training reads changes in a buffer.
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, written into `tensor`."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it is true of any process."""
        if self.world_size == 1:
            return flag
        return self.add(torch.tensor(float(flag), device=self.device)).item() > 0

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def on_rank_zero(self, do: Callable[[], Value]) -> Value:
        """What `do` returns in the first process, to all of them; so with a DenseCLIError that it raises."""
        said: list[Any] = [None]
        if self.first:
            try:
                said = [do()]
            except DenseCLIError as error:
                said = [error]
        if self.world_size > 1:
            dist.broadcast_object_list(said)
        value: Value | DenseCLIError = said[0]
        if isinstance(value, DenseCLIError):
            raise value
        return value


@contextmanager
def joined_processes(device: str) -> Iterator[Distributed]:
    """The processes that torchrun started, or this one alone; each takes the GPU of its local rank.

    device: see `pick_device`. Raises DenseCLIError.
    """
    picked = pick_device(device)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Distributed(device=picked)
        return
    if picked.type == "cuda":
        picked = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(picked)
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo")
    try:
        yield Distributed(device=picked, rank=dist.get_rank(), world_size=dist.get_world_size())
    finally:
        dist.destroy_process_group()
