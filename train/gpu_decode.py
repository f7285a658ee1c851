"""JPEG decoding on the GPU, by nvJPEG, for machines whose CPUs are too few to keep up with it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from densecli.core.errors import DenseCLIError


class JpegDecoder:
    """Stored photos -> canvases on a device.

    nvJPEG's pixels are not those of Pillow, which the teachers saw: it interpolates colour otherwise between
    the samples that a JPEG has of it.
    """

    def __init__(self, canvas: int, device: torch.device) -> None:
        self.canvas, self.device = canvas, device

    @classmethod
    def on_gpu(cls, canvas: int, device: torch.device) -> "JpegDecoder":
        """Raises DenseCLIError where the device is no GPU."""
        if device.type != "cuda":
            raise DenseCLIError(
                f"Photos cannot be decoded on a GPU: the run is on {device}.",
                hint="Leave --decode out, or give --device cuda on a machine with a GPU.",
            )
        return cls(canvas, device)

    def __call__(self, jpegs: Sequence[bytes | memoryview]) -> Tensor:
        """B photos, resized and not padded, as they are stored -> (B, 3, S, S) uint8, padded with black."""
        data = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        photos = decode_jpeg(data, mode=ImageReadMode.RGB, device=self.device)
        size = (len(photos), 3, self.canvas, self.canvas)
        canvases = torch.zeros(size, dtype=torch.uint8, device=self.device)
        for canvas, photo in zip(canvases, photos, strict=True):
            canvas[:, : photo.shape[1], : photo.shape[2]] = photo
        return canvases
