"""How the generated world looks: a texture for each stuff class and a drawing for each thing class."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

OVERSAMPLE = 3
"""Things are drawn larger by this factor, then averaged down."""
Draw = ImageDraw.ImageDraw
Rng = np.random.Generator


def _noise(rng: Rng, height: int, width: int, cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise in [-1, 1], (height, width): a coarse random grid, enlarged."""
    grid = rng.uniform(-1, 1, (max(cells[0], 2), max(cells[1], 2))).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _tint(base: tuple[int, int, int], rng: Rng, spread: float = 18) -> np.ndarray:
    return np.array(base, np.float32) + rng.uniform(-spread, spread, 3).astype(np.float32)


def _paint(value: np.ndarray, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Blend two colours by a (H, W) value in about [-1, 1]."""
    mix = np.clip(value * 0.5 + 0.5, 0, 1)[..., None]
    return dark * (1 - mix) + light * mix


def _sky(rng: Rng, h: int, w: int) -> np.ndarray:
    fall = np.linspace(-0.6, 0.6, h, dtype=np.float32)[:, None] + np.zeros((1, w), np.float32)
    clouds = np.clip(_noise(rng, h, w, (4, 5)) * 1.6 - rng.uniform(-0.2, 0.7), 0, 1)
    blue = _paint(fall, _tint((105, 150, 205), rng), _tint((175, 200, 225), rng))
    sky: np.ndarray = blue + clouds[..., None] * (235 - blue)
    return sky


def _water(rng: Rng, h: int, w: int) -> np.ndarray:
    rows = np.arange(h, dtype=np.float32)[:, None]
    phase = _noise(rng, h, w, (3, 4)) * 2.5
    waves = np.sin(rows * rng.uniform(1.0, 1.5) + phase) * 0.7
    return _paint(waves, _tint((45, 95, 140), rng), _tint((110, 160, 190), rng))


def _sand(rng: Rng, h: int, w: int) -> np.ndarray:
    grain = rng.normal(0, 0.45, (h, w)).astype(np.float32) + _noise(rng, h, w, (3, 3)) * 0.4
    return _paint(grain, _tint((180, 150, 105), rng), _tint((225, 200, 155), rng))


def _grass(rng: Rng, h: int, w: int) -> np.ndarray:
    blades = _noise(rng, h, w, (h // 5 + 2, w // 2 + 2)) * 1.2
    return _paint(blades, _tint((50, 95, 40), rng), _tint((125, 165, 80), rng))


def _wall(rng: Rng, h: int, w: int) -> np.ndarray:
    rows, cols = np.mgrid[0:h, 0:w]
    course, length = int(rng.integers(5, 9)), int(rng.integers(10, 18))
    shift = (rows // course % 2) * (length // 2)
    mortar = (rows % course == 0) | ((cols + shift) % length == 0)
    brick = _paint(
        _noise(rng, h, w, (h // 4 + 2, w // 6 + 2)), _tint((140, 80, 65), rng), _tint((185, 125, 100), rng)
    )
    return np.where(mortar[..., None], _tint((200, 190, 180), rng), brick)


def _road(rng: Rng, h: int, w: int) -> np.ndarray:
    grain = rng.normal(0, 0.3, (h, w)).astype(np.float32)
    asphalt = _paint(grain, _tint((75, 75, 80), rng, 8), _tint((125, 125, 130), rng, 8))
    rows, cols = np.mgrid[0:h, 0:w]
    middle, dash = h * rng.uniform(0.3, 0.7), int(rng.integers(8, 14))
    line = (abs(rows - middle) < 1) & (cols // dash % 2 == 0)
    return np.where(line[..., None], _tint((230, 225, 190), rng), asphalt)


def _snow(rng: Rng, h: int, w: int) -> np.ndarray:
    drift = _noise(rng, h, w, (4, 3)) * 0.8 + rng.normal(0, 0.08, (h, w)).astype(np.float32)
    return _paint(drift, _tint((190, 200, 220), rng, 10), _tint((245, 245, 250), rng, 6))


def _floor(rng: Rng, h: int, w: int) -> np.ndarray:
    rows, cols = np.mgrid[0:h, 0:w]
    size = int(rng.integers(6, 11))
    tiles = np.where((rows // size + cols // size) % 2 == 0, 0.7, -0.7).astype(np.float32)
    shade = tiles + _noise(rng, h, w, (4, 4)) * 0.3
    return _paint(shade, _tint((120, 85, 55), rng), _tint((195, 165, 125), rng))


TEXTURES: dict[str, Callable[[Rng, int, int], np.ndarray]] = {
    "sky": _sky, "water": _water, "sand": _sand, "grass": _grass,
    "wall": _wall, "road": _road, "snow": _snow, "floor": _floor,
}  # fmt: skip


def texture(stuff: str, rng: Rng, height: int, width: int) -> np.ndarray:
    """Paints a surface.

    Args:
        stuff: Name of the class.
        rng: Source of randomness.
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        (height, width, 3) float32 in about [0, 255].
    """
    return TEXTURES[stuff](rng, height, width)


def _colour(rng: Rng, hue: float) -> tuple[int, int, int]:
    """A saturated colour near a hue (0 red, 1 yellow, 2 green, 3 cyan, 4 blue, 5 magenta)."""
    at = (hue + rng.normal(0, 0.3)) % 6
    wheel = np.clip(np.array([abs(at - 3) - 1, 2 - abs(at - 2), 2 - abs(at - 4)]), 0, 1)
    low, high = rng.uniform(20, 70), rng.uniform(180, 250)
    r, g, b = (int(low + (high - low) * c) for c in wheel)
    return r, g, b


DARK, LIGHT, WOOD = (40, 40, 45), (240, 240, 240), (120, 80, 45)


def _boat(d: Draw, s: float, rng: Rng) -> None:
    d.polygon(
        [(0.05 * s, 0.68 * s), (0.95 * s, 0.68 * s), (0.78 * s, 0.95 * s), (0.2 * s, 0.95 * s)],
        fill=_colour(rng, 0),
    )
    d.line([(0.48 * s, 0.05 * s), (0.48 * s, 0.68 * s)], fill=WOOD, width=max(int(0.04 * s), 1))
    d.polygon([(0.52 * s, 0.08 * s), (0.52 * s, 0.62 * s), (0.9 * s, 0.62 * s)], fill=LIGHT)
    d.polygon([(0.44 * s, 0.2 * s), (0.44 * s, 0.62 * s), (0.15 * s, 0.62 * s)], fill=_colour(rng, 0.3))


def _kite(d: Draw, s: float, rng: Rng) -> None:
    top, right, bottom, left, mid = (
        (x * s, y * s) for x, y in [(0.5, 0.02), (0.82, 0.3), (0.5, 0.7), (0.18, 0.3), (0.5, 0.3)]
    )
    one, two = _colour(rng, 5), _colour(rng, 1)
    d.polygon([top, right, mid], fill=one)
    d.polygon([right, bottom, mid], fill=two)
    d.polygon([bottom, left, mid], fill=one)
    d.polygon([left, top, mid], fill=two)
    tail = [(0.5 * s, 0.7 * s), (0.58 * s, 0.8 * s), (0.44 * s, 0.88 * s), (0.54 * s, 0.98 * s)]
    d.line(tail, fill=DARK, width=max(int(0.04 * s), 1))


def _ball(d: Draw, s: float, rng: Rng) -> None:
    d.ellipse([0.05 * s, 0.05 * s, 0.95 * s, 0.95 * s], fill=_colour(rng, 0.5))
    start = rng.uniform(0, 360)
    for turn in (0, 120, 240):
        d.pieslice([0.05 * s, 0.05 * s, 0.95 * s, 0.95 * s], start + turn, start + turn + 60, fill=LIGHT)


def _umbrella(d: Draw, s: float, rng: Rng) -> None:
    one, two = _colour(rng, 4.1), _colour(rng, 3)
    for i in range(6):
        d.pieslice(
            [0.02 * s, 0.05 * s, 0.98 * s, 1.0 * s], 180 + i * 30, 210 + i * 30, fill=one if i % 2 else two
        )
    d.line([(0.5 * s, 0.1 * s), (0.5 * s, 0.97 * s)], fill=WOOD, width=max(int(0.05 * s), 1))


def _sheep(d: Draw, s: float, rng: Rng) -> None:
    for x in (0.28, 0.42, 0.6, 0.72):
        d.rectangle([x * s, 0.65 * s, (x + 0.06) * s, 0.95 * s], fill=DARK)
    wool = int(rng.integers(205, 245))
    for x, y in [(0.3, 0.5), (0.45, 0.42), (0.6, 0.44), (0.72, 0.52), (0.4, 0.58), (0.58, 0.6)]:
        d.ellipse(
            [(x - 0.17) * s, (y - 0.17) * s, (x + 0.17) * s, (y + 0.17) * s], fill=(wool, wool, wool - 8)
        )
    d.ellipse([0.02 * s, 0.32 * s, 0.26 * s, 0.6 * s], fill=DARK)


def _bird(d: Draw, s: float, rng: Rng) -> None:
    body = tuple(int(v) for v in rng.integers(20, 110, 3))
    d.ellipse([0.3 * s, 0.42 * s, 0.72 * s, 0.62 * s], fill=body)
    d.polygon([(0.5 * s, 0.5 * s), (0.02 * s, 0.2 * s), (0.34 * s, 0.52 * s)], fill=body)
    d.polygon([(0.5 * s, 0.5 * s), (0.98 * s, 0.15 * s), (0.64 * s, 0.52 * s)], fill=body)
    d.polygon([(0.7 * s, 0.48 * s), (0.84 * s, 0.54 * s), (0.7 * s, 0.58 * s)], fill=(235, 170, 40))


def _balloon(d: Draw, s: float, rng: Rng) -> None:
    one, two = _colour(rng, 5.2), _colour(rng, 2.2)
    d.ellipse([0.14 * s, 0.02 * s, 0.86 * s, 0.7 * s], fill=one)
    d.ellipse([0.36 * s, 0.02 * s, 0.64 * s, 0.7 * s], fill=two)
    for x in (0.32, 0.68):
        d.line(
            [(x * s, 0.62 * s), ((0.4 if x < 0.5 else 0.6) * s, 0.84 * s)],
            fill=DARK,
            width=max(int(0.03 * s), 1),
        )
    d.rectangle([0.38 * s, 0.82 * s, 0.62 * s, 0.98 * s], fill=WOOD)


def _wheels(d: Draw, s: float, y: float, radius: float, at: tuple[float, ...]) -> None:
    for x in at:
        d.ellipse([(x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s], fill=DARK)
        d.ellipse(
            [(x - radius / 2) * s, (y - radius / 2) * s, (x + radius / 2) * s, (y + radius / 2) * s],
            fill=(170, 170, 170),
        )


def _car(d: Draw, s: float, rng: Rng) -> None:
    paint = _colour(rng, 4.5)
    d.polygon(
        [(0.24 * s, 0.5 * s), (0.36 * s, 0.3 * s), (0.68 * s, 0.3 * s), (0.82 * s, 0.5 * s)], fill=paint
    )
    d.rounded_rectangle([0.03 * s, 0.48 * s, 0.97 * s, 0.74 * s], radius=0.08 * s, fill=paint)
    d.polygon(
        [(0.31 * s, 0.49 * s), (0.39 * s, 0.35 * s), (0.5 * s, 0.35 * s), (0.5 * s, 0.49 * s)],
        fill=(190, 220, 235),
    )
    d.polygon(
        [(0.54 * s, 0.49 * s), (0.54 * s, 0.35 * s), (0.65 * s, 0.35 * s), (0.74 * s, 0.49 * s)],
        fill=(190, 220, 235),
    )
    _wheels(d, s, 0.75, 0.12, (0.25, 0.75))


def _bus(d: Draw, s: float, rng: Rng) -> None:
    d.rounded_rectangle([0.02 * s, 0.12 * s, 0.98 * s, 0.84 * s], radius=0.05 * s, fill=_colour(rng, 1))
    for i in range(4):
        d.rectangle([(0.08 + i * 0.22) * s, 0.22 * s, (0.24 + i * 0.22) * s, 0.46 * s], fill=(190, 220, 235))
    d.rectangle([0.02 * s, 0.56 * s, 0.98 * s, 0.62 * s], fill=LIGHT)
    _wheels(d, s, 0.85, 0.1, (0.22, 0.78))


def _clock(d: Draw, s: float, rng: Rng) -> None:
    d.ellipse([0.04 * s, 0.04 * s, 0.96 * s, 0.96 * s], fill=_colour(rng, 3))
    d.ellipse([0.15 * s, 0.15 * s, 0.85 * s, 0.85 * s], fill=LIGHT)
    for length, width in ((0.3, 0.05), (0.2, 0.08)):
        angle = rng.uniform(0, 2 * np.pi)
        end = (0.5 * s + length * s * np.cos(angle), 0.5 * s + length * s * np.sin(angle))
        d.line([(0.5 * s, 0.5 * s), end], fill=DARK, width=max(int(width * s), 1))


def _snowman(d: Draw, s: float, rng: Rng) -> None:
    white = (250, 250, 252)
    d.ellipse([0.2 * s, 0.5 * s, 0.8 * s, 0.99 * s], fill=white, outline=(160, 170, 190))
    d.ellipse([0.3 * s, 0.2 * s, 0.7 * s, 0.58 * s], fill=white, outline=(160, 170, 190))
    d.rectangle([0.3 * s, 0.16 * s, 0.7 * s, 0.22 * s], fill=DARK)
    d.rectangle([0.37 * s, 0.01 * s, 0.63 * s, 0.18 * s], fill=DARK)
    d.polygon([(0.5 * s, 0.36 * s), (0.72 * s, 0.41 * s), (0.5 * s, 0.45 * s)], fill=(235, 125, 30))
    d.rectangle([0.3 * s, 0.5 * s, 0.7 * s, 0.57 * s], fill=_colour(rng, 0))


def _chair(d: Draw, s: float, rng: Rng) -> None:
    paint = _colour(rng, 2)
    d.rectangle([0.15 * s, 0.03 * s, 0.25 * s, 0.97 * s], fill=WOOD)
    d.rectangle([0.75 * s, 0.55 * s, 0.85 * s, 0.97 * s], fill=WOOD)
    d.rectangle([0.12 * s, 0.5 * s, 0.9 * s, 0.63 * s], fill=paint)
    for y in (0.08, 0.26):
        d.rectangle([0.15 * s, y * s, 0.42 * s, (y + 0.11) * s], fill=paint)


DRAWINGS: dict[str, Callable[[Draw, float, Rng], None]] = {
    "boat": _boat, "kite": _kite, "ball": _ball, "umbrella": _umbrella, "sheep": _sheep, "bird": _bird,
    "balloon": _balloon, "car": _car, "bus": _bus, "clock": _clock, "snowman": _snowman, "chair": _chair,
}  # fmt: skip


def draw_thing(thing: str, rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a thing on a square, mirrored at random.

    Args:
        thing: Name of the class.
        rng: Source of randomness.
        size: Side of the square in pixels.

    Returns:
        Colours, (size, size, 3) uint8, and the covered share of each pixel, (size, size) in [0, 1].
    """
    patch = Image.new("RGBA", (size * OVERSAMPLE, size * OVERSAMPLE), (0, 0, 0, 0))
    DRAWINGS[thing](ImageDraw.Draw(patch), size * OVERSAMPLE, rng)
    pixels = np.asarray(patch.reduce(OVERSAMPLE), np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    alpha = pixels[..., 3:] / 255
    # reduce() mixes colours with transparent black; undo this for pixels that a thing covers partly.
    return np.clip(pixels[..., :3] / np.maximum(alpha, 1 / 255), 0, 255).astype(np.uint8), alpha[..., 0]
