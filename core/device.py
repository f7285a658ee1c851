"""Devices by name, and the precision of what they compute."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

from densecli.core.errors import DenseCLIError


def pick_device(name: str) -> torch.device:
    """Picks a device.

    Args:
        name: `auto` for a GPU of CUDA where there is one, else Apple's (mps), else the CPU; or any of torch's
            own names.

    Raises:
        DenseCLIError: For a name that torch does not know, and for a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DenseCLIError(
            f"There is no device {name!r}.", hint="Give auto, cpu, cuda, cuda:N or mps."
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DenseCLIError(
            f"There is no GPU for the device {name!r} on this machine.", hint="Give auto or cpu."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DenseCLIError("There is no GPU of Apple's on this machine.", hint="Give auto or cpu.")
    return device


HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Precisions of 16 bits, in which autocast multiplies matrices."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The precision of a network on a device.

    Attributes:
        name: fp32; tf32; or fp16 or bf16, where what autocast leaves in float32 is multiplied as tf32.
        device: The device.
    """

    name: str
    device: torch.device

    def autocast(self) -> torch.autocast:
        """The context for forward passes."""
        dtype = HALF.get(self.name)
        return torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    @contextmanager
    def block(self) -> Iterator[None]:
        """Computes in this precision as long as the block lasts, whatever holds around it."""
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        _allow_tf32(*[self.name != "fp32"] * 2)
        try:
            with self.autocast():
                yield
        finally:
            _allow_tf32(*before)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """A block that computes in float32, within one of a lower precision."""
    return Precision(name="fp32", device=device).block()


def set_precision(name: str, device: torch.device) -> Precision:
    """Sets how this process multiplies float32 matrices on a GPU.

    Args:
        name: fp32, tf32, bf16, or auto for bf16 on a GPU and fp32 elsewhere.
        device: The device.
    """
    if name == "auto":
        name = "bf16" if device.type == "cuda" else "fp32"
    _allow_tf32(*[name != "fp32"] * 2)
    return Precision(name=name, device=device)


def _allow_tf32(matmul: bool, convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = convolutions


def free_bytes(device: torch.device) -> int | None:
    """The bytes of a GPU's memory that this process can still fill; None for any other device."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


MEMORY_SHARE = 64
"""A loss that works in blocks gives a block this part of a GPU's memory."""
CPU_BLOCK = 2**23
"""Bytes of such a block elsewhere: as much as stays in a cache."""


def block_bytes(device: torch.device) -> int:
    """The bytes that one block of a computation in blocks should have on a device.

    Many small blocks would cost a GPU more in launches than in arithmetic.
    """
    if device.type != "cuda":
        return CPU_BLOCK
    return max(CPU_BLOCK, torch.cuda.get_device_properties(device).total_memory // MEMORY_SHARE)


# What errors say for want of memory. The libraries of a GPU have their own words for it: cuBLAS cannot make
# its handle, cuDNN finds no algorithm whose workspace fits.
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_NOT_INITIALIZED",
)


def lacks_memory(error: RuntimeError) -> bool:
    """Whether an error of torch means that the device's memory is used up."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)
