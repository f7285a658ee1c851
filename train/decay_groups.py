"""The parameters of a network in AdamW's groups."""

from typing import Any

from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What is not frozen, in two groups: no weight decay on 1-D tensors (norms, biases, layer scales) nor on
    scalars (logit_scale), as in CLIP, CLIPSelf, DeCLIP and DenseVLM."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
