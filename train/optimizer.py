"""AdamW with its parameter groups and learning rate, and frozen parameters."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def freeze(model: nn.Module, names: Iterable[str]) -> None:
    """Excludes parameters from training. Raises KeyError for a name that the model does not have."""
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].requires_grad_(False)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters in two groups, with and without weight decay.

    1-D tensors (norms, biases, layer scales) and scalars (logit_scale) have none, as in CLIP, CLIPSelf,
    DeCLIP and DenseVLM.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def adamw(
    model: nn.Module, *, weight_decay: float, betas: tuple[float, float], fused: bool = False
) -> torch.optim.AdamW:
    """Makes AdamW over `decay_groups`. Set its rate before each step with `set_learning_rate`.

    Args:
        model: The model; frozen parameters are left out.
        weight_decay: Weight decay of tensors with two or more dimensions.
        betas: Decay rates of the two moments.
        fused: Updates all tensors in one kernel.
    """
    return torch.optim.AdamW(decay_groups(model, weight_decay), lr=0.0, betas=betas, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
