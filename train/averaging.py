"""Weight interpolation: the exported student lies between its initial and its trained weights."""

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
    """Interpolates weights: alpha * student + (1 - alpha) * initial, as CLIPSelf does.

    Tensors that were not trained come out bit-equal; integer buffers are the student's.

    Args:
        student: State dict after training.
        initial: State dict before training.
        alpha: Share of the trained weights.
    """
    return {
        name: torch.lerp(initial[name].to(tensor), tensor, alpha) if tensor.is_floating_point() else tensor
        for name, tensor in student.items()
    }


def cloned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors to the CPU, to be written to a file.

    safetensors refuses tensors that share memory, and torch.save would write all of the shared memory.
    """
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def export_student(
    network: nn.Module, initial: dict[str, Tensor], *, alpha: float, folder: str, card: dict[str, Any]
) -> str:
    """Writes an interpolated network and its model card: a CLIP in OpenCLIP's format, a VFM in timm's.

    Args:
        network: The trained network.
        initial: Its state dict before training, on the CPU.
        alpha: Share of the trained weights.
        folder: Folder for the files WEIGHTS and CARD of `models.model_card`.
        card: Other fields of the card.

    Returns:
        Path of the weights.
    """
    path = fs.join(folder, WEIGHTS)
    trained = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    data = safetensors.torch.save(cloned(average(trained, initial, alpha)))
    fs.write_atomic(path, data)
    about = {
        **card,
        "alpha": alpha,
        "sha256": hashlib.sha256(data).hexdigest(),
        "densecli": version("densecli"),
    }
    fs.write_atomic(fs.join(folder, CARD), json.dumps(about, indent=2).encode())
    return path
