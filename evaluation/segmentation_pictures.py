"""Pictures of segmentation: some photos with their true classes and those that models predict."""

import colorsys
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from densecli.core.drawing import shorten
from densecli.core.page import Figure, Section
from densecli.core.tables import plain
from densecli.evaluation.config import SegmentationConfig
from densecli.evaluation.segmentation import predict, window_scores
from densecli.evaluation.semantic import Labelled
from densecli.models.dense import DenseCLIP
from densecli.shards.geometry import RESAMPLE

SIDE = 360
"""Longest side of a picture: it is not reduced on a page 390 px wide, and three fit beside each other."""
FONT = 14
LABELLED = 0.01
"""Smallest share of a photo that gets its name written on it."""
NAMED = 8
"""So many classes are named below a picture, each in at most NAME characters."""
NAME = 30
TINT = 0.6
# Okabe and Ito, without black. Further colours are spread over the hues.
_COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)),
    (204, 121, 167),
)
_TEXT = (
    "Each photo with its true classes and those of each model, in the same colours on all of them. Grey is"
    " not annotated and does not count. Names are written on the larger classes where there is room; the"
    " shares below are of all pixels."
)


class Pictures:
    """Photos spread evenly over a data set, and the classes that models predict for them."""

    def __init__(self, dataset: Labelled, config: SegmentationConfig) -> None:
        """Reads the photos.

        Args:
            dataset: Labelled photos.
            config: How they are segmented, and how many are shown.
        """
        count = min(config.pictures, len(dataset))
        self.config, self.classes = config, dataset.classes
        self.photos = [dataset[i * len(dataset) // count] for i in range(count)]
        self._predicted: dict[str, list[np.ndarray]] = {}

    @torch.inference_mode()
    def predict(self, title: str, model: DenseCLIP, text: Tensor) -> None:
        """Segments the photos; `title` names the model."""
        self._predicted[title] = [
            predict(
                window_scores(model, each.photo, text, self.config),
                self.classes,
                each.labels.shape,
                self.config,
            ).numpy()
            for each in self.photos
        ]

    def sections(self) -> list[Section]:
        """A section with the explanation, then one for each photo."""
        palette = self._palette()
        sections = [Section(title="Pictures", text=[_TEXT])]
        for i, each in enumerate(self.photos):
            name = plain(each.name)
            maps = {"truth": each.labels, **{title: maps[i] for title, maps in self._predicted.items()}}
            small = ImageOps.contain(each.photo, (SIDE, SIDE), RESAMPLE)
            photo = Figure(title="photo", image=small, alt=f"The photo {name}.", width=SIDE)
            figures = [
                self._figure(title, small, labels, each.labels, palette) for title, labels in maps.items()
            ]
            sections.append(Section(title=f"Photo {name}", parts=[photo, *figures], linked=False))
        return sections

    def _palette(self) -> dict[int, tuple[int, int, int]]:
        """A colour for each class in the pictures; the classes that cover most get the clearest."""
        pixels: Counter[int] = Counter()
        for i, each in enumerate(self.photos):
            for labels in (each.labels, *(maps[i] for maps in self._predicted.values())):
                pixels.update(_areas(labels))
        return {c: _colour(place) for place, (c, _) in enumerate(pixels.most_common())}

    def _figure(
        self,
        title: str,
        photo: Image.Image,
        labels: np.ndarray,
        truth: np.ndarray,
        palette: dict[int, tuple[int, int, int]],
    ) -> Figure:
        areas = Counter(_areas(labels)).most_common()
        shares = [
            f"{plain(self.classes.names[c], NAME)} {100 * area / labels.size:.0f}%"
            for c, area in areas[:NAMED]
        ]
        note = ", ".join(shares) + (f" and {len(areas) - NAMED} more" if len(areas) > NAMED else "")
        if labels is not truth and (counted := truth >= 0).any():
            note = f"{100 * (labels == truth)[counted].mean():.0f}% of the annotated pixels are right. {note}"
        return Figure(
            title=title,
            image=draw_classes(photo, labels, self.classes.names, palette),
            alt=f"Classes, {title}: {note}",
            note=note,
            width=SIDE,
        )


def draw_classes(
    photo: Image.Image,
    labels: np.ndarray,
    names: Sequence[str],
    palette: dict[int, tuple[int, int, int]],
) -> Image.Image:
    """Draws the class of every pixel over a photo, with the names of the larger ones.

    Args:
        photo: RGB, of the size of the result.
        labels: (H, W) classes; negative ones are grey.
        names: Names of the classes.
        palette: Colour of each class.
    """
    # Nearest neighbour, because classes have no mean.
    small = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(photo.size, Image.Resampling.NEAREST))
    grey = np.asarray(photo.convert("L"), np.float32)[..., None].repeat(3, 2)
    drawn = 0.5 * grey
    for c in np.unique(small[small >= 0]).tolist():
        of_class = small == c
        drawn[of_class] = (1 - TINT) * grey[of_class] + TINT * np.array(palette[c], np.float32)
    picture = Image.fromarray(drawn.round().astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
    taken: list[tuple[float, float, float]] = []
    for c, area in Counter(_areas(small)).most_common():
        text = shorten(plain(names[c]), font, picture.width - 8)
        x, y = _inside(small == c)
        half = font.getlength(text) / 2 + 4
        x = min(max(x, half), picture.width - half)
        y = min(max(y, FONT), picture.height - FONT)
        free = all(abs(x - u) > half + w or abs(y - v) > FONT + 2 for u, v, w in taken)
        if free and area >= LABELLED * small.size:
            draw.text((x, y), text, (255, 255, 255), font, "mm", stroke_width=2, stroke_fill=(0, 0, 0))
            taken.append((x, y, half))
    return picture


def _areas(labels: np.ndarray) -> dict[int, int]:
    """Pixels of each class."""
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    return dict(zip(classes.tolist(), counts.tolist(), strict=True))


def _inside(mask: np.ndarray) -> tuple[float, float]:
    """A point (x, y) of a mask that is about as far from its edge as any: what is left of it by erosion."""
    step = 4
    left = np.pad(mask[::step, ::step], 1)
    if not left.any():
        step, left = 1, np.pad(mask, 1)
    while True:
        inner = left.copy()
        for axis in (0, 1):
            for shift in (1, -1):
                inner &= np.roll(left, shift, axis)
        if not inner.any():
            break
        left = inner
    ys, xs = np.nonzero(left)
    middle = len(ys) // 2
    return float((xs[middle] - 1) * step), float((ys[middle] - 1) * step)


def _colour(place: int) -> tuple[int, int, int]:
    """The colour of the class with this place among the classes by size."""
    if place < len(_COLOURS):
        return _COLOURS[place]
    # Steps of the golden ratio keep neighbours apart.
    red, green, blue = colorsys.hsv_to_rgb(0.618 * place % 1, 0.45 + 0.2 * (place % 3), 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)
