"""What a network's tokens see: affinities to a point of a photo, before and after, side by side."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image, ImageFilter

from densecli.evaluation.affinity import Point, affinity_panel, point_panel
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.page import Figure
from densecli.evaluation.panoptic import AnnotatedPhoto, PanopticDataset, Segment
from densecli.evaluation.preview import row_of
from densecli.models.student import load_student
from densecli.shards.geometry import Canvas

Dense = Callable[[np.ndarray], np.ndarray]
"""(S, S, 3) uint8 canvas -> (h, w, C) token map."""
WIDTH = 260  # px of a panel


def affinity_figures(
    models: Mapping[str, Dense], dataset: PanopticDataset, canvas: int, limit: int
) -> list[Figure]:
    """For the first `limit` photos a row: the photo with a point, and each model's affinities to it.

    The point lies deep inside the largest thing of one photo, the largest stuff of the next.
    """
    figures = []
    for i in range(min(limit, len(dataset))):
        photo = dataset[i]
        if segment := _largest(photo, thing=i % 2 == 0):
            name = dataset.categories.names[segment.category]
            figures.append(_figure(models, photo, segment, name, Canvas(canvas)))
    return figures


def _figure(
    models: Mapping[str, Dense], photo: AnnotatedPhoto, segment: Segment, category: str, canvas: Canvas
) -> Figure:
    image = np.asarray(canvas.resize(photo.photo))
    picture = affinity_row(models, image, inner_point(segment.mask), canvas)
    return Figure(
        title=f"{photo.key}: a point of {category}",
        image=picture,
        alt=f"Photo {photo.key} with a ringed point of {category}, and how alike all tokens are to it:"
        f" {', '.join(models)}",
        width=picture.width,
    )


def affinity_row(models: Mapping[str, Dense], image: np.ndarray, point: Point, canvas: Canvas) -> Image.Image:
    """A photo, (h, w, 3) uint8 un-padded at canvas scale, with its point; each model's affinities to it."""
    panels = {"the point": point_panel(image, point, WIDTH)}
    for name, dense in models.items():
        panels[name] = affinity_panel(image, dense(canvas.pad(image)), point, canvas, WIDTH)
    return row_of(panels)


def _largest(photo: AnnotatedPhoto, *, thing: bool) -> Segment | None:
    """The largest segment of that kind, of the other where there is none."""
    return max(photo.segments, key=lambda s: (s.thing == thing, s.area), default=None)


def inner_point(mask: np.ndarray) -> tuple[float, float]:
    """Bool (H, W) with any pixel -> x and y in 0..1 of the pixel that has most of the mask around it."""
    radius = max(1, round(mask.sum() ** 0.5 / 2))
    # Beyond the photo is none of it.
    padded = Image.fromarray(np.pad(mask.astype(np.uint8) * 255, radius))
    around = np.asarray(padded.filter(ImageFilter.BoxBlur(radius)))[radius:-radius, radius:-radius]
    y, x = np.unravel_index(np.where(mask, around.astype(int), -1).argmax(), mask.shape)
    return (float(x) + 0.5) / mask.shape[1], (float(y) + 0.5) / mask.shape[0]


def token_map(subject: ModelUnderTest, mode: str, device: torch.device) -> Dense:
    """The subject's dense map in a mode, as `affinity_row` asks for it; of a CLIP or of a VFM."""
    model, _ = load_student(subject.model, subject.weights, device)

    @torch.inference_mode()
    def tokens(canvas: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(canvas).permute(2, 0, 1)[None].to(device)
        return model(model.prepare(pixels), mode)[0].permute(1, 2, 0).float().cpu().numpy()

    return tokens
