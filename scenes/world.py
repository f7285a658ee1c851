"""The generated world: small seeded scenes of things on stuff, with panoptic annotations and captions.

Things and stuff occur together as in real photos (boat on water, kite in the sky), and captions name things
more often than stuff. So a CLIP that is trained on whole images gets the foreground bias that dense
distillation is meant to reduce.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from densecli.scenes.art import draw_thing, texture
from densecli.scenes.vocabulary import IMAGE_SIZE, NAMES, STUFF, THINGS

SIZE = IMAGE_SIZE
GENERATOR_VERSION = 1
SPLITS = ("train", "val", "test", "pretrain")

# Places: their stuff from top to bottom, and their things, each with the stuff that it stands on.
PLACES: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "harbour": (("sky", "water"), (("boat", "water"), ("bird", "sky"))),
    "beach": (
        ("sky", "water", "sand"),
        (("boat", "water"), ("umbrella", "sand"), ("ball", "sand"), ("kite", "sky")),
    ),
    "meadow": (
        ("sky", "grass"),
        (("sheep", "grass"), ("kite", "sky"), ("balloon", "sky"), ("ball", "grass")),
    ),
    "street": (("wall", "road"), (("car", "road"), ("bus", "road"), ("clock", "wall"))),
    "lane": (
        ("sky", "grass", "road"),
        (("car", "road"), ("bus", "road"), ("sheep", "grass"), ("balloon", "sky")),
    ),
    "winter": (("sky", "snow"), (("snowman", "snow"), ("bird", "sky"))),
    "room": (("wall", "floor"), (("chair", "floor"), ("clock", "wall"), ("ball", "floor"))),
    "terrace": (("wall", "sand"), (("umbrella", "sand"), ("chair", "sand"))),
}
STRAY = 0.12
"""Share of things that are put in a place where they do not belong."""
THING_NAMED, STUFF_NAMED = 0.9, 0.1
"""Probability that a caption names a thing in the picture, and a stuff in it."""
CLOSE_UP, MAX_ZOOM, OF_A_THING = 0.5, 4.0, 0.6
"""Share of close-ups, their largest zoom, and the share of them that centre on a thing."""
NOTICED = 0.006
"""Captions name segments that are larger than this share of the picture."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One panoptic segment.

    Attributes:
        id: Its id in the scene's map.
        category: Its class, an index into NAMES.
    """

    id: int
    category: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A scene with its annotations.

    Attributes:
        image: (SIZE, SIZE, 3) uint8.
        panoptic: Segment ids, (SIZE, SIZE) int32.
        segments: The segments of the map.
        caption: A sentence.
    """

    image: np.ndarray
    panoptic: np.ndarray
    segments: tuple[Segment, ...]
    caption: str


def _borders(rng: np.random.Generator, bands: int) -> np.ndarray:
    """Wavy lower borders of all bands but the last: (bands - 1, SIZE) rows, from top to bottom."""
    columns = np.arange(SIZE) / SIZE
    level = np.sort(rng.dirichlet(np.full(bands, 6.0)).cumsum()[:-1]) * SIZE
    wave = [
        rng.uniform(0, 4) * np.sin(2 * np.pi * (rng.uniform(0.3, 1.5) * columns + rng.random()))
        for _ in level
    ]
    return np.array([at + bend for at, bend in zip(level, wave, strict=True)]).reshape(bands - 1, SIZE)


def _ground(rng: np.random.Generator, stuff: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The stuff of a place: the picture (SIZE, SIZE, 3) float32 and each pixel's band (SIZE, SIZE) int."""
    rows = np.arange(SIZE)[:, None]
    band = sum((rows >= border[None]).astype(int) for border in _borders(rng, len(stuff)))
    band = np.broadcast_to(band, (SIZE, SIZE))
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    for i, name in enumerate(stuff):
        here = band == i
        image[here] = texture(name, rng, SIZE, SIZE)[here]
    return image, band


def _place_things(
    rng: np.random.Generator,
    image: np.ndarray,
    band: np.ndarray,
    stuff: tuple[str, ...],
    homes: tuple[tuple[str, str], ...],
) -> tuple[np.ndarray, list[int]]:
    """Paints 1 to 5 things. Returns the thing at each pixel (0: none, i: thing i - 1) and their classes."""
    owner = np.zeros((SIZE, SIZE), np.int32)
    kinds: list[int] = []
    for _ in range(int(rng.choice([1, 2, 3, 4, 5], p=[0.25, 0.3, 0.2, 0.15, 0.1]))):
        name, home = homes[int(rng.integers(len(homes)))]
        if rng.random() < STRAY:
            name, home = THINGS[int(rng.integers(len(THINGS)))], stuff[int(rng.integers(len(stuff)))]
        inside = np.argwhere(band == stuff.index(home))
        if not len(inside):
            continue
        size = int(np.clip(rng.lognormal(np.log(28), 0.4), 12, 64))
        row, col = inside[int(rng.integers(len(inside)))]
        top, left = int(row - size * rng.uniform(0.5, 0.95)), int(col - size / 2)
        pixels, alpha = draw_thing(name, rng, size)
        r0, r1, c0, c1 = max(top, 0), min(top + size, SIZE), max(left, 0), min(left + size, SIZE)
        cut = np.s_[r0 - top : r1 - top, c0 - left : c1 - left]
        cover = alpha[cut][..., None]
        image[r0:r1, c0:c1] = image[r0:r1, c0:c1] * (1 - cover) + pixels[cut] * cover
        kinds.append(THINGS.index(name))
        owner[r0:r1, c0:c1][alpha[cut] > 0.5] = len(kinds)
    return owner, kinds


def _zoom(
    rng: np.random.Generator, image: np.ndarray, panoptic: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a close-up: an enlarged window of the scene."""
    side = round(SIZE / np.exp(rng.uniform(0, np.log(MAX_ZOOM))))
    middle = rng.integers(0, SIZE, 2)
    things = np.argwhere(owner)
    if len(things) and rng.random() < OF_A_THING:
        middle = things[int(rng.integers(len(things)))]
    row, column = np.clip(middle - side // 2, 0, SIZE - side)
    window = np.s_[row : row + side, column : column + side]
    size = (SIZE, SIZE)
    near = Image.fromarray(image[window]).resize(size, Image.Resampling.BICUBIC)
    ids = Image.fromarray(panoptic[window]).resize(size, Image.Resampling.NEAREST)
    return np.asarray(near), np.asarray(ids)


def _caption(rng: np.random.Generator, things: list[str], stuff: list[str]) -> str:
    """A sentence that names nearly every thing, and sometimes stuff."""
    named = [t for t in things if rng.random() < THING_NAMED]
    ground = [s for s in stuff if rng.random() < STUFF_NAMED]
    if not named and not ground:
        named, ground = (things[:1], ground) if things else (named, stuff[:1])
    rng.shuffle(named)
    words = ["a", "photo", "of"]
    for i, name in enumerate(named):
        words += ["and"] * (i > 0) + ["a", name]
    for i, name in enumerate(ground):
        words += ["and" if i else "with" if named else "the", name]
    return " ".join(words)


def render(seed: int, split: str, index: int) -> Scene:
    """Renders a scene, which depends only on the arguments.

    Args:
        seed: Seed of the world.
        split: One of SPLITS.
        index: Number of the scene, from 0.
    """
    rng = np.random.default_rng([GENERATOR_VERSION, seed, SPLITS.index(split), index])
    stuff, homes = PLACES[list(PLACES)[int(rng.integers(len(PLACES)))]]
    image, band = _ground(rng, stuff)
    owner, kinds = _place_things(rng, image, band, stuff, homes)
    light = rng.uniform(0.75, 1.15) * (1 + rng.uniform(-0.08, 0.08, 3))
    image = np.clip(image * light + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)

    panoptic = np.where(owner > 0, owner + len(stuff), band + 1).astype(np.int32)
    if rng.random() < CLOSE_UP:
        image, panoptic = _zoom(rng, image, panoptic, owner)
    every = [*(NAMES.index(s) for s in stuff), *kinds]
    ids, areas = np.unique(panoptic, return_counts=True)
    segments = tuple(Segment(id=i, category=every[i - 1]) for i in ids.tolist())
    noticed = (s.category for s, area in zip(segments, areas, strict=True) if area > NOTICED * SIZE**2)
    seen = list(dict.fromkeys(NAMES[category] for category in noticed))
    caption = _caption(rng, [n for n in seen if n in THINGS], [n for n in seen if n in STUFF])
    return Scene(image=image, panoptic=panoptic, segments=segments, caption=caption)
