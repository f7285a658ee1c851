"""Export: the alpha-averaged student as a checkpoint that other projects read, with a card beside it."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from densecli.core import fs
from densecli.models.model_card import CARD, WEIGHTS


def average(student: dict[str, Tensor], initial: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """alpha * student + (1 - alpha) * initial of every floating-point tensor (as CLIPSelf averages).

    A tensor that training left alone comes out bit-equal; integer buffers are the student's.
    """
    return {
        name: torch.lerp(initial[name].to(tensor), tensor, alpha) if tensor.is_floating_point() else tensor
        for name, tensor in student.items()
    }


def cloned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor on the CPU, in memory of its own, for files: safetensors refuses tensors that share it, and
    torch.save writes all of it."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def export_student(
    network: nn.Module, initial: dict[str, Tensor], *, alpha: float, folder: str, card: dict[str, Any]
) -> str:
    """Writes WEIGHTS and CARD into `folder`. A CLIP is written whole, in OpenCLIP's layout; a VFM in timm's.

    initial: state dict of `network` before training. Returns the path of the weights.
    """
    path = fs.join(folder, WEIGHTS)
    data = safetensors.torch.save(cloned(average(network.state_dict(), initial, alpha)))
    fs.write_atomic(path, data)
    about = {
        **card,
        "alpha": alpha,
        "sha256": hashlib.sha256(data).hexdigest(),
        "densecli": version("densecli"),
    }
    fs.write_atomic(fs.join(folder, CARD), json.dumps(about, indent=2).encode())
    return path
