"""Decodes JPEGs on the GPU with nvJPEG, for machines with few CPU cores."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from densecli.core.errors import DenseCLIError


class JpegDecoder:
    """Decodes stored photos to canvases on a device.

    Pixels differ slightly from Pillow's, which the teachers saw: nvJPEG interpolates subsampled colours in
    another way.
    """

    def __init__(self, canvas: int, device: torch.device) -> None:
        """Makes a decoder for canvases with this side in pixels, on this device."""
        self.canvas, self.device = canvas, device

    @classmethod
    def on_gpu(cls, canvas: int, device: torch.device) -> "JpegDecoder":
        """Makes a decoder on a GPU. Raises DenseCLIError for any other device."""
        if device.type != "cuda":
            raise DenseCLIError(
                f"Photos cannot be decoded on a GPU, because the run uses {device}.",
                hint="Leave --decode out, or give --device cuda on a machine with a GPU.",
            )
        return cls(canvas, device)

    def __call__(self, jpegs: Sequence[bytes | memoryview]) -> Tensor:
        """Decodes photos.

        Args:
            jpegs: B photos as stored, resized and not padded.

        Returns:
            (B, 3, S, S) uint8, padded with black.
        """
        data = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        photos = decode_jpeg(data, mode=ImageReadMode.RGB, device=self.device)
        size = (len(photos), 3, self.canvas, self.canvas)
        canvases = torch.zeros(size, dtype=torch.uint8, device=self.device)
        for canvas, photo in zip(canvases, photos, strict=True):
            canvas[:, : photo.shape[1], : photo.shape[2]] = photo
        return canvases
