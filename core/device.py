"""The device by name."""

import torch

from densecli.core.errors import DenseCLIError


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one, else the CPU; other names are torch's own.

    Raises DenseCLIError for a name torch does not know and for a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DenseCLIError(f"There is no device {name!r}.", hint="Give auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DenseCLIError(
            f"There is no GPU for the device {name!r} on this machine.", hint="Give auto or cpu."
        )
    return device
