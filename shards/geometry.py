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

    def resize(self, image: Image.Image, of: tuple[int, int] | None = None) -> Image.Image:
        """The photo as RGB, longest side `size`, bicubic with antialiasing, not padded.

        of: the photo's own width and height, where `image` was decoded at a smaller scale.
        """
        # To convert would copy even where there is nothing to convert.
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return rgb.resize(self.fit(*(of or image.size)), RESAMPLE)

    def valid_box(self, width: int, height: int) -> np.ndarray:
        """(4,) float32 normalised xyxy of the canvas that a photo of width x height pixels covers."""
        w, h = self.fit(width, height)
        return np.array([0, 0, w / self.size, h / self.size], np.float32)

    def pad(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 of a resized photo -> (size, size, 3) uint8, black to the right and below."""
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        canvas[: image.shape[0], : image.shape[1]] = image
        return canvas

    def crop(self, image: np.ndarray, box: np.ndarray, side: int, context: float = 1.0) -> np.ndarray:
        """The pixels of a box, longest side to `side`, centred on black: (side, side, 3) uint8.

        image: (h, w, 3) uint8, a resized photo. box: (4,) xyxy normalised to the canvas; `context` times its
        size around its centre is taken, as far as the photo goes (CLIPSelf: 1 for grids, 1.5 for proposals).
        """
        limits = np.array(image.shape[1::-1], np.float64)
        corners = np.asarray(box, np.float64).reshape(2, 2) * self.size
        centre, half = corners.mean(0), (corners[1] - corners[0]) / 2 * context
        # Rounding may leave a box no pixel of its own; it then gets the nearest one.
        first = np.minimum(np.clip(centre - half, 0, limits).round(), limits - 1).astype(int)
        last = np.maximum(np.clip(centre + half, 0, limits).round().astype(int), first + 1)
        crop = Image.fromarray(image[first[1] : last[1], first[0] : last[0]])
        # A crop's own canvas: its longest side is the square's.
        w, h = Canvas(side).fit(*crop.size)
        square = Image.new("RGB", (side, side))
        square.paste(crop.resize((w, h), RESAMPLE), ((side - w) // 2, (side - h) // 2))
        return np.asarray(square)

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
