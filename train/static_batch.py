"""Batches of one size: a compiled network is compiled again for every new one."""

from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

Outputs = TypeVar("Outputs")


def filled(tensor: Tensor, rows: int) -> Tensor:
    """Adds copies of a tensor's first row until it has `rows` of them; 0 leaves the tensor as it is."""
    if not rows:
        return tensor
    missing = tensor[:1].expand(max(0, rows - len(tensor)), *tensor.shape[1:])
    # Contiguous, filled or not: other strides would be compiled for, too.
    return torch.cat([tensor.contiguous(), missing.contiguous()]) if len(missing) else tensor.contiguous()


def without_filling(outputs: Outputs, rows: int) -> Outputs:
    """Keeps the first `rows` rows of all tensors in nested tuples, lists and dicts.

    The others then get no gradient, so that they change no sum.
    """
    found: Outputs = tree_map_only(Tensor, lambda tensor: tensor[:rows], outputs)
    return found
