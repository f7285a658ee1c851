"""AdamW, the learning-rate schedule, and what stays frozen."""

import math

import torch
from torch import nn

from densecli.train.decay_groups import decay_groups


def freeze(model: nn.Module, names: set[str]) -> None:
    """Excludes the parameters called `names` from training. A name the model does not have is a KeyError."""
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].requires_grad_(False)


def adamw(
    model: nn.Module, *, weight_decay: float, betas: tuple[float, float], fused: bool = False
) -> torch.optim.AdamW:
    """AdamW over `decay_groups`; `learning_rate` gives the rate, step by step. fused: one kernel for all
    tensors."""
    return torch.optim.AdamW(decay_groups(model, weight_decay), lr=0.0, betas=betas, fused=fused)


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """The rate of step `step` (counted from 0): linear warm-up to `peak`, then a cosine towards 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
