"""A picture of a token map: how alike each token is to that of a chosen point.

Cosines run from dark blue to yellow as in cividis, which is made for colour-blind readers: also from dark to
light, so that a grey print tells the same.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densecli.shards.geometry import Canvas

# cividis at 0, 1/4, 1/2, 3/4 and 1.
RAMP = np.array([(0, 34, 78), (67, 78, 108), (125, 124, 120), (188, 175, 111), (254, 232, 56)], float)
OPACITY = 0.7
Point = tuple[float, float]
INK, PAPER = (25, 25, 25), (255, 255, 255)


def affinity(factors: np.ndarray, token: tuple[int, int]) -> np.ndarray:
    """(h, w, r) factors F of a map and a token's (row, column) -> (h, w) its cosines with every token."""
    unit = factors / np.maximum(np.linalg.norm(factors, axis=2, keepdims=True), 1e-12)
    return unit @ unit[token]


def token_at(point: Point, valid: tuple[float, float], grid: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the token below a point, x and y in 0..1 of the photo; valid: the photo's share of the
    canvas, width and height; grid: h, w of the map, which is of the whole canvas."""
    x, y = point[0] * valid[0], point[1] * valid[1]
    return min(int(y * grid[0]), grid[0] - 1), min(int(x * grid[1]), grid[1] - 1)


def colours(values: np.ndarray) -> np.ndarray:
    """(h, w) in 0..1 -> (h, w, 3) uint8 of the ramp."""
    stops = np.linspace(0, 1, len(RAMP))
    return (
        np.stack([np.interp(values, stops, channel) for channel in RAMP.T], axis=-1).round().astype(np.uint8)
    )


def affinity_panel(
    image: np.ndarray, factors: np.ndarray, point: Point, canvas: Canvas, width: int = 480
) -> Image.Image:
    """The photo in grey below its affinities, the point ringed, and the scale: from the least cosine to 1.

    image: (h, w, 3) uint8, un-padded at canvas scale. factors: (gh, gw, r) of its canvas.
    """
    valid = (image.shape[1] / canvas.size, image.shape[0] / canvas.size)
    grid = (factors.shape[0], factors.shape[1])
    cosines = affinity(factors, token_at(point, valid, grid))
    # Tokens beyond the photo see black alone: they would set the scale.
    inside = cosines[: int(np.ceil(valid[1] * grid[0])), : int(np.ceil(valid[0] * grid[1]))]
    least = min(float(inside.min()), 1 - 1e-6)
    heat = colours(np.clip((cosines - least) / (1 - least), 0, 1))
    scale = width / image.shape[1]
    size = (width, round(image.shape[0] * scale))
    side = round(canvas.size * scale)
    tint = Image.fromarray(heat).resize((side, side), Image.Resampling.NEAREST).crop((0, 0, *size))
    photo = Image.fromarray(image).convert("L").convert("RGB").resize(size, Image.Resampling.BICUBIC)
    panel = Image.new("RGB", (width, size[1] + 26), PAPER)
    panel.paste(Image.blend(photo, tint, OPACITY))
    _ring(panel, point, size)
    draw_ramp(panel, size[1], f"cosine {least:.2f}", "1")
    return panel


def point_panel(image: np.ndarray, point: Point, width: int = 480) -> Image.Image:
    """The photo itself with the point ringed, as large as its `affinity_panel`."""
    photo = Image.fromarray(image)
    size = (width, round(photo.height * width / photo.width))
    panel = Image.new("RGB", (width, size[1] + 26), PAPER)
    panel.paste(photo.resize(size, Image.Resampling.BICUBIC))
    _ring(panel, point, size)
    return panel


def _ring(panel: Image.Image, point: Point, size: tuple[int, int]) -> None:
    draw = ImageDraw.Draw(panel)
    x, y = point[0] * (size[0] - 1), point[1] * (size[1] - 1)
    draw.ellipse((x - 9, y - 9, x + 9, y + 9), outline=INK, width=6)
    draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=PAPER, width=2)


def draw_ramp(panel: Image.Image, top: int, least: str, most: str, left: int = 0) -> None:
    """The colours between the words for their ends, in the 26 px below `top`, from `left` on."""
    font = ImageFont.load_default(16)
    draw = ImageDraw.Draw(panel)
    first, last = left + 8 + round(font.getlength(least)), panel.width - 8 - round(font.getlength(most))
    bar = Image.fromarray(colours(np.linspace(0, 1, last - first)[None].repeat(16, 0)))
    panel.paste(bar, (first, top + 6))
    draw.text((left, top + 14), least, INK, font, "lm")
    draw.text((panel.width, top + 14), most, INK, font, "rm")
