"""The letterbox canvas: the one geometry that teacher, store, student and evaluation share."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

RESAMPLE = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Canvas:
    """A square of `size` pixels with the photo in its top left corner, longest side resized to `size`."""

    size: int

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in canvas pixels of a photo of width x height pixels."""
        scale = self.size / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def resize(self, image: Image.Image) -> Image.Image:
        """The photo as RGB, longest side `size`, bicubic with antialiasing, not padded."""
        return image.convert("RGB").resize(self.fit(*image.size), RESAMPLE)

    def valid_box(self, width: int, height: int) -> np.ndarray:
        """(4,) float32 normalised xyxy of the canvas that a photo of width x height pixels covers."""
        w, h = self.fit(width, height)
        return np.array([0, 0, w / self.size, h / self.size], np.float32)

    def pad(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 of a resized photo -> (size, size, 3) uint8, black to the right and below."""
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        canvas[: image.shape[0], : image.shape[1]] = image
        return canvas

    def to_canvas(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """(N, 4) xyxy in pixels of the original photo -> (N, 4) float32 xyxy normalised to the canvas."""
        return (np.asarray(boxes, np.float64) * self._scale(width, height)).astype(np.float32)

    def to_image(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """(N, 4) xyxy normalised to the canvas -> (N, 4) float32 xyxy in pixels of the original photo."""
        return (np.asarray(boxes, np.float64) / self._scale(width, height)).astype(np.float32)

    def _scale(self, width: int, height: int) -> np.ndarray:
        # Each side by its own factor: fit() rounds to whole pixels, so the two differ a little.
        w, h = self.fit(width, height)
        return np.array([w / width, h / height] * 2) / self.size
