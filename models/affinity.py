"""Pictures of token maps: how similar each token is to the token below a chosen point.

Cosines run from dark blue to yellow; see `core.drawing`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw

from densecli.core.drawing import INK, PAPER, draw_scale, heat_colours, side_by_side
from densecli.models.student import Student
from densecli.shards.geometry import Canvas

OPACITY = 0.7
PANEL_WIDTH = 260
"""Pixels of a panel of `affinity_row`."""
Point = tuple[float, float]
"""x and y of a point of a photo, each in 0..1."""
TokenMap = Callable[[np.ndarray], np.ndarray]
"""A function from a canvas, (S, S, 3) uint8, to its dense map, (h, w, C)."""


def token_map(model: Student, mode: str) -> TokenMap:
    """Makes the dense map of a model into a function that `affinity_row` can call.

    Args:
        model: A CLIP or a VFM in eval mode, on any device.
        mode: How the last block is read out.
    """
    device = next(model.parameters()).device

    @torch.inference_mode()
    def tokens(canvas: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(canvas).permute(2, 0, 1)[None].to(device)
        dense: np.ndarray = model(model.prepare(pixels), mode)[0].permute(1, 2, 0).float().cpu().numpy()
        return dense

    return tokens


def affinity_row(
    models: Mapping[str, TokenMap], image: np.ndarray, point: Point, canvas: Canvas
) -> Image.Image:
    """A photo with a point, and beside it the affinities of each model's tokens to that point.

    Args:
        models: Dense maps by the title of their panel.
        image: (h, w, 3) uint8, the photo at canvas scale, not padded.
        point: The point, which is ringed in every panel.
        canvas: The canvas that the models see.
    """
    panels = {"the point": point_panel(image, point, PANEL_WIDTH)}
    for name, dense in models.items():
        panels[name] = affinity_panel(image, dense(canvas.pad(image)), point, canvas, PANEL_WIDTH)
    return side_by_side(panels)


def affinity_panel(
    image: np.ndarray, tokens: np.ndarray, point: Point, canvas: Canvas, width: int = 480
) -> Image.Image:
    """A photo in grey under its affinities to a point, with a scale from the lowest cosine to 1.

    Args:
        image: (h, w, 3) uint8, the photo at canvas scale, not padded.
        tokens: (gh, gw, C) map of the whole canvas, or factors with the same cosines.
        point: The point, which is ringed.
        canvas: The canvas of the map.
        width: Width of the panel in pixels.
    """
    cosines = affinity(tokens, token_at(point, photo_share(image, canvas), tokens.shape[:2]))
    least = min(float(inside(cosines, image, canvas).min()), 1 - 1e-6)
    return heat_panel(image, cosines, (least, 1), (f"cosine {least:.2f}", "1"), canvas, width, point)


def heat_panel(
    image: np.ndarray,
    values: np.ndarray,
    ends: tuple[float, float],
    words: tuple[str, str],
    canvas: Canvas,
    width: int,
    point: Point | None = None,
) -> Image.Image:
    """A photo in grey under a value for each token, with a scale.

    Args:
        image: (h, w, 3) uint8, the photo at canvas scale, not padded.
        values: (gh, gw), a value for each token of the whole canvas.
        ends: The values at the dark and the bright end of the scale.
        words: What is written there.
        canvas: The canvas of the map.
        width: Width of the panel in pixels.
        point: A point, which is ringed.
    """
    low, high = ends
    heat = heat_colours(np.clip((values - low) / max(high - low, 1e-9), 0, 1))
    size = panel_size(image, width)
    side = max(1, round(canvas.size * max(size) / max(image.shape[:2])))
    tint = Image.fromarray(heat).resize((side, side), Image.Resampling.NEAREST).crop((0, 0, *size))
    photo = Image.fromarray(image).convert("L").convert("RGB").resize(size, Image.Resampling.BICUBIC)
    panel = Image.new("RGB", (width, size[1] + 26), PAPER)
    panel.paste(Image.blend(photo, tint, OPACITY))
    if point:
        draw_ring(panel, point, size)
    draw_scale(panel, size[1], *words)
    return panel


def panel_size(image: np.ndarray, width: int) -> tuple[int, int]:
    """Pixels of a photo (h, w, 3) in a panel: `width` wide, but never more than twice as high as that."""
    scale = min(width / image.shape[1], 2 * width / image.shape[0])
    return max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))


def photo_share(image: np.ndarray, canvas: Canvas) -> tuple[float, float]:
    """The share of the canvas's width and height that a photo (h, w, 3) at canvas scale covers."""
    return image.shape[1] / canvas.size, image.shape[0] / canvas.size


def inside(values: np.ndarray, image: np.ndarray, canvas: Canvas) -> np.ndarray:
    """The part of a map (gh, gw, ...) of the canvas whose tokens see the photo; the others see only black."""
    width, height = photo_share(image, canvas)
    return values[: int(np.ceil(height * values.shape[0])), : int(np.ceil(width * values.shape[1]))]


def point_panel(image: np.ndarray, point: Point, width: int = 480) -> Image.Image:
    """A photo with a ringed point, of the same size as its `affinity_panel`."""
    photo = Image.fromarray(image)
    size = panel_size(image, width)
    panel = Image.new("RGB", (width, size[1] + 26), PAPER)
    panel.paste(photo.resize(size, Image.Resampling.BICUBIC))
    draw_ring(panel, point, size)
    return panel


def affinity(tokens: np.ndarray, token: tuple[int, int]) -> np.ndarray:
    """Cosines of all tokens with one of them.

    Args:
        tokens: (h, w, C).
        token: Row and column of that one.

    Returns:
        (h, w) cosines.
    """
    unit = tokens / np.maximum(np.linalg.norm(tokens, axis=2, keepdims=True), 1e-12)
    cosines: np.ndarray = unit @ unit[token]
    return cosines


def token_at(point: Point, valid: tuple[float, float], grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the token below a point of the photo.

    Args:
        point: The point in the photo.
        valid: The photo's share of the width and the height of the canvas.
        grid: Rows and columns of the map, which covers the whole canvas.
    """
    x, y = point[0] * valid[0], point[1] * valid[1]
    return min(int(y * grid[0]), grid[0] - 1), min(int(x * grid[1]), grid[1] - 1)


def draw_ring(panel: Image.Image, point: Point, size: tuple[int, int]) -> None:
    """Rings a point of the photo that fills the first `size` pixels of a panel."""
    draw = ImageDraw.Draw(panel)
    x, y = point[0] * (size[0] - 1), point[1] * (size[1] - 1)
    draw.ellipse((x - 9, y - 9, x + 9, y + 9), outline=INK, width=6)
    draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=PAPER, width=2)
