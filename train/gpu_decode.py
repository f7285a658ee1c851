"""Decodes JPEGs on the GPU with nvJPEG, for machines with few CPU cores."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from densecli.core.errors import DenseCLIError

Decode = Callable[[list[Tensor], torch.device], Sequence[Tensor]]
"""JPEGs, (n,) uint8 on the CPU each -> (3, h, w) uint8 photos on a device."""


def find_decoder() -> tuple[str, Decode]:
    """The library that decodes, and its call: torchcodec, else torchvision, whose call is deprecated."""
    try:
        from torchcodec.decoders import decode_jpeg
    # It raises RuntimeError where a library that it needs is missing or of another version of torch.
    except (ImportError, RuntimeError, OSError):
        return "torchvision", _by_torchvision
    return "torchcodec", lambda jpegs, device: decode_jpeg(jpegs, mode="RGB", device=device)


def _by_torchvision(jpegs: list[Tensor], device: torch.device) -> Sequence[Tensor]:
    from torchvision.io import ImageReadMode, decode_jpeg

    with warnings.catch_warnings():
        # Said once, by `JpegDecoder.notes`.
        warnings.simplefilter("ignore", DeprecationWarning)
        found: Sequence[Tensor] = decode_jpeg(jpegs, mode=ImageReadMode.RGB, device=device)
    return found


class JpegDecoder:
    """Decodes stored photos to canvases on a device.

    Pixels differ slightly from Pillow's, which the teachers saw: nvJPEG interpolates subsampled colours in
    another way.

    Attributes:
        library: The library that decodes.
    """

    def __init__(self, canvas: int, device: torch.device) -> None:
        """Makes a decoder for canvases with this side in pixels, on this device."""
        self.canvas, self.device = canvas, device
        self.library, self._decode = find_decoder()

    @classmethod
    def on_gpu(cls, canvas: int, device: torch.device) -> "JpegDecoder":
        """Makes a decoder on a GPU. Raises DenseCLIError for any other device."""
        if device.type != "cuda":
            raise DenseCLIError(
                f"Photos cannot be decoded on a GPU, because the run uses {device}.",
                hint="Leave --decode out, or give --device cuda on a machine with a GPU.",
            )
        return cls(canvas, device)

    def notes(self) -> list[str]:
        """Sentences that a user should read before the first step."""
        if self.library == "torchcodec":
            return []
        return [
            "Photos are decoded by torchvision, which will drop its decoder: pip install torchcodec (0.16 or "
            "later) replaces it."
        ]

    def __call__(self, jpegs: Sequence[bytes | memoryview]) -> Tensor:
        """Decodes photos.

        Args:
            jpegs: B photos as stored, resized and not padded.

        Returns:
            (B, 3, S, S) uint8, padded with black.
        """
        data = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        photos = self._decode(data, self.device)
        size = (len(photos), 3, self.canvas, self.canvas)
        canvases = torch.zeros(size, dtype=torch.uint8, device=self.device)
        for canvas, photo in zip(canvases, photos, strict=True):
            canvas[:, : photo.shape[1], : photo.shape[2]] = photo
        return canvases
