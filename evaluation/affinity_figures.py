"""Affinity figures: annotated photos with a point, and how similar each model's tokens are to it."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageFilter

from densecli.core.page import Figure
from densecli.evaluation.panoptic import AnnotatedPhoto, PanopticDataset, Segment
from densecli.models.affinity import TokenMap, affinity_row
from densecli.shards.geometry import Canvas


def affinity_figures(
    models: Mapping[str, TokenMap], dataset: PanopticDataset, canvas: int, limit: int
) -> list[Figure]:
    """Draws a figure for each of the first photos: a point in it, and each model's affinities to that point.

    In turn, the point lies deep inside the largest thing of a photo and inside the largest stuff.

    Args:
        models: Dense maps of the models by the title of their panel.
        dataset: The photos.
        canvas: Side of the canvas in pixels.
        limit: Number of photos.
    """
    figures = []
    for i in range(min(limit, len(dataset))):
        photo = dataset[i]
        if segment := largest_segment(photo, thing=i % 2 == 0):
            name = dataset.categories.names[segment.category]
            figures.append(_figure(models, photo, segment, name, Canvas(canvas)))
    return figures


def _figure(
    models: Mapping[str, TokenMap], photo: AnnotatedPhoto, segment: Segment, category: str, canvas: Canvas
) -> Figure:
    image = np.asarray(canvas.resize(photo.photo))
    picture = affinity_row(models, image, inner_point(segment.mask), canvas)
    return Figure(
        title=f"{photo.key}: a point of {category}",
        image=picture,
        alt=f"Photo {photo.key} with a ringed point of {category}, and the similarity of all tokens to it:"
        f" {', '.join(models)}",
        width=picture.width,
    )


def largest_segment(photo: AnnotatedPhoto, *, thing: bool) -> Segment | None:
    """The largest segment of a kind; of the other kind if the photo has none. None without segments."""
    return max(photo.segments, key=lambda s: (s.thing == thing, s.area), default=None)


def inner_point(mask: np.ndarray) -> tuple[float, float]:
    """x and y in 0..1 of the pixel with most of the mask around it; mask: bool (H, W), not empty."""
    radius = max(1, round(mask.sum() ** 0.5 / 2))
    # Pixels beyond the photo do not belong to the mask.
    padded = Image.fromarray(np.pad(mask.astype(np.uint8) * 255, radius))
    around = np.asarray(padded.filter(ImageFilter.BoxBlur(radius)))[radius:-radius, radius:-radius]
    y, x = np.unravel_index(np.where(mask, around.astype(int), -1).argmax(), mask.shape)
    return (float(x) + 0.5) / mask.shape[1], (float(y) + 0.5) / mask.shape[0]
