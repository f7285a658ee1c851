"""JPEG decoding on the GPU by nvJPEG, for machines with too few CPU cores."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from densecli.core.errors import DenseCLIError


class JpegDecoder:
    """Decodes stored photos to canvases on a device.

    Its pixels differ slightly from Pillow's, which the teachers saw: nvJPEG interpolates the subsampled
    colour of a JPEG in another way.
    """

    def __init__(self, canvas: int, device: torch.device) -> None:
        """Keeps the side of the canvas in pixels and the device."""
        self.canvas, self.device = canvas, device

    @classmethod
    def on_gpu(cls, canvas: int, device: torch.device) -> "JpegDecoder":
        """The decoder of a GPU. Raises DenseCLIError for a device that is none."""
        if device.type != "cuda":
            raise DenseCLIError(
                f"Photos cannot be decoded on a GPU: the run is on {device}.",
                hint="Leave --decode out, or give --device cuda on a machine with a GPU.",
            )
        return cls(canvas, device)

    def __call__(self, jpegs: Sequence[bytes | memoryview]) -> Tensor:
        """Decodes photos.

        Args:
            jpegs: B photos as a store has them, resized and not padded.

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
