"""The pictures of one photo: what its tokens attend to, correlate with, and are nearest to among texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from densecli.core.drawing import GAP, INK, PAPER
from densecli.core.page import Figure
from densecli.evaluation.affinity_figures import inner_point, largest_segment
from densecli.evaluation.layer_pictures import (
    LayerReading,
    attention_picture,
    correlation_picture,
    read_layers,
)
from densecli.evaluation.panoptic import AnnotatedPhoto
from densecli.evaluation.semantic import category_map
from densecli.evaluation.text_pictures import Scene, heat_picture, segmentation_picture
from densecli.models.affinity import Point, draw_ring, inside, panel_size, point_panel, token_map
from densecli.models.student import Student, has_layers
from densecli.shards.geometry import Canvas

WIDTH = 350
"""Pixels of a picture: a telephone shows it whole."""
CENTRE = (0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class PictureRequest:
    """What is drawn of each photo.

    Attributes:
        models: The models by title, of one architecture.
        texts: (D, C) unit embeddings of the categories by the title of each model; empty without text towers.
        names: The D categories.
        canvas: The canvas.
        mode: How dense maps are read out.
        layers: Numbers of the layers to draw; empty for networks without layers.
        heat_maps: Number of categories with a heat map.
        point: The query point; None for one in each of the photo's two largest regions.
    """

    models: Mapping[str, Student]
    texts: Mapping[str, Tensor]
    names: Sequence[str]
    canvas: Canvas
    mode: str
    layers: Sequence[int]
    heat_maps: int
    point: Point | None


@dataclass(frozen=True, kw_only=True)
class PhotoPictures:
    """The pictures of a photo, and by the title of each model what its layers do."""

    key: str
    figures: Sequence[Figure]
    readings: Mapping[str, LayerReading]


def draw_photo(photo: AnnotatedPhoto, request: PictureRequest) -> PhotoPictures:
    """Draws a photo.

    Args:
        photo: The photo; its segments may be empty.
        request: What to draw.
    """
    canvas = request.canvas
    image = np.asarray(canvas.resize(photo.photo))
    dense = {
        title: token_map(model, request.mode)(canvas.pad(image)) for title, model in request.models.items()
    }
    scene = _scene(image, dense, request) if request.texts else None
    points = _points(photo, scene, request)
    readings = {
        title: read_layers(model, image, canvas, points, request.layers)
        for title, model in request.models.items()
        if has_layers(model)
    }
    # Two panels and what is between them are as wide as a picture.
    width = WIDTH if len(dense) == 1 else (WIDTH - GAP) // 2
    pictures = {"The photo": _photo_picture(image, points)}
    if scene:
        annotated = category_map(photo) if photo.segments else None
        pictures["Nearest categories"] = segmentation_picture(scene, width, annotated)
        if shown := scene.present(annotated)[: request.heat_maps]:
            pictures["Similarity to texts"] = heat_picture(scene, shown, width)
    drawn = {title: reading for title, reading in readings.items() if reading.maps}
    for query in next(iter(drawn.values())).queries if drawn else ():
        picture = attention_picture(drawn, image, canvas, query, width, points.get(query))
        pictures[f"Attention of {query}"] = picture
    for name, point in points.items():
        picture = correlation_picture(drawn, dense, image, canvas, point, width)
        pictures[f"Correlation with {name}"] = picture
    titles = ", ".join(dense)
    figures = [
        Figure(
            title=name, image=picture, alt=f"{photo.key}: {name}, {titles}", width=picture.width, photo=True
        )
        for name, picture in pictures.items()
    ]
    return PhotoPictures(key=photo.key, figures=figures, readings=readings)


def _scene(image: np.ndarray, dense: Mapping[str, np.ndarray], request: PictureRequest) -> Scene:
    cosines = {}
    for title, tokens in dense.items():
        unit = F.normalize(torch.from_numpy(tokens), dim=2)
        text = request.texts[title].cpu()
        cosines[title] = torch.einsum("dc,hwc->dhw", text, unit).numpy()
    return Scene(image=image, canvas=request.canvas, names=request.names, cosines=cosines)


def _points(photo: AnnotatedPhoto, scene: Scene | None, request: PictureRequest) -> dict[str, Point]:
    """The query points by name: that asked for, else one deep inside each of the two largest regions."""
    if request.point:
        return {"the point": request.point}
    regions: list[tuple[int, np.ndarray]] = []
    if photo.segments:
        largest = [largest_segment(photo, thing=thing) for thing in (True, False)]
        regions = [(each.category, each.mask) for each in largest if each]
    elif scene:
        nearest = np.mean(list(scene.cosines.values()), axis=0).argmax(0)
        labels = inside(nearest, scene.image, scene.canvas)
        largest_two = np.argsort(-np.bincount(labels.ravel()), kind="stable")[:2]
        regions = [(int(c), labels == c) for c in largest_two if (labels == c).any()]
    found: dict[Point, str] = {}
    for category, mask in regions:
        # Where a photo has segments of one kind alone, the largest is named twice.
        found.setdefault(inner_point(mask), f"point {len(found) + 1} ({request.names[category]})")
    return {name: point for point, name in found.items()} or {"the centre": CENTRE}


def _photo_picture(image: np.ndarray, points: Mapping[str, Point]) -> Image.Image:
    """The photo with its points ringed and, where there are several, numbered."""
    first, *others = points.values()
    picture = point_panel(image, first, WIDTH)
    size = panel_size(image, WIDTH)
    for point in others:
        draw_ring(picture, point, size)
    if others:
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
        for number, (x, y) in enumerate(points.values(), start=1):
            # To the left of the ring where the right edge is near.
            side, anchor = (-14, "rm") if x > 0.9 else (14, "lm")
            at = (x * size[0] + side, y * size[1])
            draw.text(at, str(number), PAPER, font, anchor, stroke_width=3, stroke_fill=INK)
    return picture.crop((0, 0, WIDTH, size[1]))
