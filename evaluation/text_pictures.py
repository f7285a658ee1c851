"""Pictures of a dense map beside texts: heat maps of categories, and segmentations over the photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor, ImageDraw, ImageFont

from densecli.core.charts import LINE_COLOURS
from densecli.core.drawing import GAP, INK, PAPER, column, shorten, side_by_side
from densecli.core.tables import plain
from densecli.models.affinity import heat_panel, inside, panel_size
from densecli.shards.geometry import Canvas

TINT = 0.6
OTHER = (150, 150, 150)
COLOURS = tuple(ImageColor.getrgb(colour)[:3] for colour in LINE_COLOURS)
LEGEND_LINE = 24  # px
NAME_LIMIT = 40  # characters


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A photo as models see it.

    Attributes:
        image: (h, w, 3) uint8, the photo at canvas scale, not padded.
        canvas: The canvas.
        names: The D categories.
        cosines: By the title of each model, (D, gh, gw) cosines of the canvas's tokens with the categories.
    """

    image: np.ndarray
    canvas: Canvas
    names: Sequence[str]
    cosines: Mapping[str, np.ndarray]

    def shares(self, title: str) -> np.ndarray:
        """(D,) the share of the photo's tokens that each category is the nearest of."""
        nearest = inside(self.cosines[title].argmax(0), self.image, self.canvas)
        counts = np.bincount(nearest.ravel(), minlength=len(self.names))
        shares: np.ndarray = counts / nearest.size
        return shares

    def present(self, annotated: np.ndarray | None = None) -> list[int]:
        """The categories that cover any of the photo, those that cover most of it first.

        Args:
            annotated: (H, W) the true category of each pixel, negative where there is none; it counts as
                much as all models together.
        """
        shares = np.mean([self.shares(title) for title in self.cosines], axis=0)
        if annotated is not None:
            shares = shares + np.bincount(annotated[annotated >= 0], minlength=len(shares)) / annotated.size
        return [int(c) for c in np.argsort(-shares, kind="stable") if shares[c] > 0]

    def labels(self, title: str, width: int) -> np.ndarray:
        """(H, W) the nearest category of each pixel in a panel, after the cosines are enlarged bilinearly."""
        size = panel_size(self.image, width)
        side = max(1, round(self.canvas.size * max(size) / max(self.image.shape[:2])))
        cosines = torch.from_numpy(self.cosines[title])[None]
        enlarged = F.interpolate(cosines, size=(side, side), mode="bilinear", align_corners=False)
        found: np.ndarray = enlarged[0, :, : size[1], : size[0]].argmax(0).numpy()
        return found


def heat_picture(scene: Scene, categories: Sequence[int], width: int) -> Image.Image:
    """A row for each category with each model's cosines, from the lowest to the highest in the photo."""
    rows = []
    for category in categories:
        panels = {}
        for title, cosines in scene.cosines.items():
            values = cosines[category]
            of_photo = inside(values, scene.image, scene.canvas)
            ends = float(of_photo.min()), float(of_photo.max())
            words = f"{ends[0]:.2f}", f"{ends[1]:.2f}"
            name = f"{plain(scene.names[category], NAME_LIMIT)}, {title}"
            panels[name] = heat_panel(scene.image, values, ends, words, scene.canvas, width)
        rows.append(side_by_side(panels))
    return column(rows, gap=GAP)


def segmentation_picture(scene: Scene, width: int, annotated: np.ndarray | None = None) -> Image.Image:
    """Each model's nearest categories over the photo, above a legend with their shares.

    Args:
        scene: The photo.
        width: Width of each model's panel in pixels.
        annotated: (H, W) the true category of each pixel of the photo, negative where there is none.
    """
    present = scene.present(annotated)
    coloured = dict(zip(present, COLOURS, strict=False))

    def panel(labels: np.ndarray) -> Image.Image:
        # Of a narrow photo, the panel is wider than the photo.
        picture = Image.new("RGB", (width, len(labels)), PAPER)
        picture.paste(overlay(scene.image, labels, coloured))
        return picture

    panels = {title: panel(scene.labels(title, width)) for title in scene.cosines}
    rows = [side_by_side(panels)]
    if annotated is not None:
        size = panel_size(scene.image, width)
        truth = Image.fromarray(annotated.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
        rows.append(side_by_side({"annotated": panel(np.asarray(truth))}))
    rows.append(_legend(scene, coloured, len(present) > len(coloured), rows[0].width))
    return column(rows, gap=GAP)


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    colours: Mapping[int, tuple[int, ...]],
) -> Image.Image:
    """A photo under the colours of its labels.

    Args:
        image: (h, w, 3) uint8, the photo at any scale.
        labels: (H, W) a category for each pixel of the picture; negative ones stay without a colour.
        colours: RGB by category; all further ones are grey.

    Returns:
        A picture of H x W pixels.
    """
    table = np.array([OTHER] * (int(labels.max(initial=0)) + 1), np.uint8)
    for category, colour in colours.items():
        if category < len(table):
            table[category] = colour
    size = (labels.shape[1], labels.shape[0])
    photo = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    tinted = Image.blend(photo, Image.fromarray(table[np.maximum(labels, 0)]), TINT)
    return Image.composite(tinted, photo, Image.fromarray((labels >= 0).astype(np.uint8) * 255))


def _legend(scene: Scene, coloured: Mapping[int, tuple[int, ...]], others: bool, width: int) -> Image.Image:
    shares = {title: scene.shares(title) for title in scene.cosines}
    rows = [
        (colour, plain(scene.names[c]), [shares[title][c] for title in shares])
        for c, colour in coloured.items()
    ]
    if others:
        named = list(coloured)
        rows.append((OTHER, "all others", [1 - found[named].sum() for found in shares.values()]))
    legend = Image.new("RGB", (width, LEGEND_LINE * len(rows)), PAPER)
    draw, font = ImageDraw.Draw(legend), ImageFont.load_default(16)
    for i, (colour, name, found) in enumerate(rows):
        top = LEGEND_LINE * i
        draw.rectangle((0, top + 3, 24, top + LEGEND_LINE - 4), fill=colour, outline=INK)
        text = " to ".join(f"{share:.0%}" for share in found)
        draw.text((width, top + LEGEND_LINE // 2), text, INK, font, "rm")
        room = width - 44 - font.getlength(text)
        draw.text((32, top + LEGEND_LINE // 2), shorten(name, font, room), INK, font, "lm")
    return legend
