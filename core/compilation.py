"""Whether torch.compile can be used here."""

import os
import shutil
from importlib.util import find_spec

import torch

C_COMPILERS = ("cc", "gcc", "clang")


def compiler_lacks(device: torch.device) -> str | None:
    """What torch.compile lacks to make code for a device, None if nothing.

    Args:
        device: The device. For a GPU it needs Triton, and Triton a C compiler.
    """
    if device.type == "cuda" and find_spec("triton") is None:
        return "the package triton"
    compiler = os.environ.get("CC")
    if not any(map(shutil.which, [compiler] if compiler else C_COMPILERS)):
        return "a C compiler"
    return None
