"""The letterbox canvas: the geometry that teachers, store, student and evaluation share."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

RESAMPLE = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Canvas:
    """A square of `size` pixels with the photo at the top left, its longest side resized to `size`."""

    size: int

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) on the canvas, in pixels, of a photo of width x height pixels."""
        scale = self.size / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def resize(self, image: Image.Image, of: tuple[int, int] | None = None) -> Image.Image:
        """The photo as RGB with longest side `size`, not padded. Bicubic with antialiasing.

        Args:
            image: The photo, perhaps decoded at a smaller scale.
            of: (width, height) of the photo itself, if it was.
        """
        # Converting copies even an RGB image.
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return rgb.resize(self.fit(*(of or image.size)), RESAMPLE)

    def valid_box(self, width: int, height: int) -> np.ndarray:
        """(4,) float32 xyxy in 0..1: the part of the canvas that a photo of width x height pixels covers."""
        w, h = self.fit(width, height)
        return np.array([0, 0, w / self.size, h / self.size], np.float32)

    def pad(self, image: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
        """Pads a resized photo (h, w, 3) uint8 with black at the right and below to (size, size, 3).

        Args:
            image: The photo.
            into: Takes the result; by default a new array.
        """
        canvas = np.empty((self.size, self.size, 3), np.uint8) if into is None else into
        height, width = image.shape[:2]
        canvas[:height, :width] = image
        canvas[height:] = 0
        canvas[:height, width:] = 0
        return canvas

    def crop(self, image: np.ndarray, box: np.ndarray, side: int, context: float = 1.0) -> np.ndarray:
        """The pixels of a box, longest side resized to `side`, centred on black.

        Args:
            image: (h, w, 3) uint8, a resized photo.
            box: (4,) xyxy normalised to the canvas.
            side: Side of the crop, in pixels.
            context: The crop is the box enlarged by this factor around its centre, cut at the photo's edge.
                CLIPSelf uses 1 for grids and 1.5 for proposals.

        Returns:
            (side, side, 3) uint8.
        """
        limits = np.array(image.shape[1::-1], np.float64)
        corners = np.asarray(box, np.float64).reshape(2, 2) * self.size
        centre, half = corners.mean(0), (corners[1] - corners[0]) / 2 * context
        # A box that rounding leaves without any pixel gets the nearest one.
        first = np.minimum(np.clip(centre - half, 0, limits).round(), limits - 1).astype(int)
        last = np.maximum(np.clip(centre + half, 0, limits).round().astype(int), first + 1)
        crop = Image.fromarray(image[first[1] : last[1], first[0] : last[0]])
        # The crop is letterboxed in turn, but centred.
        w, h = Canvas(side).fit(*crop.size)
        square = Image.new("RGB", (side, side))
        square.paste(crop.resize((w, h), RESAMPLE), ((side - w) // 2, (side - h) // 2))
        return np.asarray(square)

    def to_canvas(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Boxes (N, 4) xyxy in pixels of the original photo, as float32 normalised to the canvas."""
        scaled: np.ndarray = np.asarray(boxes, np.float64) * self._scale(width, height)
        return scaled.astype(np.float32)

    def to_image(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        """Boxes (N, 4) xyxy normalised to the canvas, as float32 in pixels of the original photo."""
        scaled: np.ndarray = np.asarray(boxes, np.float64) / self._scale(width, height)
        return scaled.astype(np.float32)

    def _scale(self, width: int, height: int) -> np.ndarray:
        # A factor for each side: fit() rounds to whole pixels, so the two differ a little.
        w, h = self.fit(width, height)
        return np.array([w / width, h / height] * 2) / self.size
