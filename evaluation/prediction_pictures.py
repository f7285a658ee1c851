"""Pictures of a prediction: segmentation and boxes above a legend, and heat maps of names."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from densecli.core.drawing import GAP, INK, PAPER, column, draw_scale, heat_colours, shorten
from densecli.core.tables import plain
from densecli.evaluation.segmentation_pictures import draw_classes
from densecli.models.prediction import NamedRegion, Prediction, on_photo
from densecli.shards.geometry import RESAMPLE

Colour = tuple[int, int, int]
COLOURS: tuple[Colour, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)),
    (204, 121, 167),
)
"""The palette of Okabe and Ito without black, which colour-blind readers can tell apart."""
GREY: Colour = (150, 150, 150)
OTHERS = "all others"
NO_NAME = "no name"
DRAWN = 20
"""So many boxes are drawn, the most probable ones."""
OPACITY = 0.65
LEAST_WIDTH = 280
"""Pixels of the narrowest picture: a legend needs some room."""
LINE = 26  # px of the legend
FONT = 16


def palette(prediction: Prediction) -> dict[int, Colour]:
    """A colour for each name.

    With no more names than colours, a name has its colour in every photo. Of more names, those that cover
    most of this photo, or name most of its boxes, have one.
    """
    if len(prediction.names) <= len(COLOURS):
        return dict(enumerate(COLOURS[: len(prediction.names)]))
    places = {name: c for c, name in enumerate(prediction.names)}
    shown = dict.fromkeys([*prediction.shares(), *(region.name for region in prediction.regions)])
    return {places[name]: colour for name, colour in zip(shown, COLOURS, strict=False)}


def draw_segmentation(prediction: Prediction, side: int) -> Image.Image:
    """The name of every pixel in colour over the photo in grey, above a legend with the names' shares.

    Args:
        prediction: The prediction.
        side: Longest side of the photo in the picture, in pixels.
    """
    colours = palette(prediction)
    photo = _photo(prediction, side)
    every = {c: colours.get(c, GREY) for c in range(len(prediction.names))}
    drawn = draw_classes(photo, prediction.labels, prediction.names, every)
    _outline(drawn, prediction.labels)
    shares = prediction.shares()
    rows = [
        (colour, prediction.names[c], f"{shares[prediction.names[c]]:.0%}")
        for c, colour in sorted(colours.items(), key=lambda each: -shares.get(prediction.names[each[0]], 0))
        if prediction.names[c] in shares
    ]
    others = sum(shares.values()) - sum(shares.get(prediction.names[c], 0) for c in colours)
    if others > 0:
        rows.append((GREY, OTHERS, f"{others:.0%}"))
    if (without := 1 - sum(shares.values())) > 1e-9:
        rows.append((PAPER, NO_NAME, f"{without:.0%}"))
    return column([drawn, legend(rows, max(drawn.width, LEAST_WIDTH))], gap=GAP)


def draw_boxes(prediction: Prediction, side: int) -> Image.Image:
    """The named boxes on the photo, above a legend with their number and probabilities by name."""
    colours = {prediction.names[c]: colour for c, colour in palette(prediction).items()}
    picture = _photo(prediction, side)
    shown = sorted(prediction.regions, key=lambda region: -region.probability)[:DRAWN]
    scale = picture.width / prediction.width
    # The largest first, so that a small one's label is not hidden.
    for region in sorted(shown, key=lambda region: -_area(region)):
        _draw_box(picture, region, scale, colours.get(region.name, GREY))
    by_name: dict[str, list[float]] = {}
    for region in shown:
        by_name.setdefault(region.name, []).append(region.probability)
    rows = [
        (colours.get(name, GREY), f"{name} ({len(found)})" if len(found) > 1 else name, _range(found))
        for name, found in by_name.items()
    ]
    notes = []
    if not shown:
        notes.append("No box.")
    if left_out := len(prediction.regions) - len(shown):
        notes.append(f"The {left_out} less probable boxes are not drawn.")
    return column([picture, legend(rows, max(picture.width, LEAST_WIDTH), notes)], gap=GAP)


def draw_heat(prediction: Prediction, name: str, side: int) -> Image.Image:
    """The photo in grey under its cosines with a name, the lowest dark blue and the highest yellow."""
    photo = _photo(prediction, side)
    row = torch.from_numpy(prediction.cosines[[prediction.names.index(name)]])
    values = on_photo(row, prediction.image.shape[:2], prediction.canvas)[0].numpy()
    low, high = float(values.min()), float(values.max())
    scaled = Image.fromarray((values - low) / max(high - low, 1e-9)).resize(
        photo.size, Image.Resampling.BILINEAR
    )
    heat = Image.fromarray(heat_colours(np.clip(np.asarray(scaled), 0, 1)))
    blended = Image.blend(photo.convert("L").convert("RGB"), heat, OPACITY)
    width = max(photo.width, LEAST_WIDTH)
    picture = Image.new("RGB", (width, photo.height + 2 * LINE + 4), PAPER)
    picture.paste(blended)
    font = ImageFont.load_default(FONT)
    title = shorten(f"cosine with {plain(name)}", font, width)
    ImageDraw.Draw(picture).text((0, photo.height + LINE // 2), title, INK, font, "lm")
    draw_scale(picture, photo.height + LINE, f"{low:.2f}", f"{high:.2f}")
    return picture


def legend(rows: Sequence[tuple[Colour, str, str]], width: int, notes: Sequence[str] = ()) -> Image.Image:
    """A row for each colour with its name and a number, in as many columns as there is room for."""
    font = ImageFont.load_default(FONT)
    texts = [(colour, plain(name), number) for colour, name, number in rows]
    widest = max((60 + font.getlength(name) + font.getlength(number) for _, name, number in texts), default=1)
    columns = max(1, min(int(width / widest), 3, len(texts)))
    lines = -(-len(texts) // columns)
    picture = Image.new("RGB", (width, LINE * (lines + len(notes)) or 1), PAPER)
    draw = ImageDraw.Draw(picture)
    room = (width - GAP * 2 * (columns - 1)) // columns
    for i, (colour, name, number) in enumerate(texts):
        left, top = (room + 2 * GAP) * (i // lines), LINE * (i % lines)
        draw.rectangle((left, top + 4, left + 24, top + LINE - 5), fill=colour, outline=INK)
        draw.text((left + room, top + LINE // 2), number, INK, font, "rm")
        fitting = shorten(name, font, room - 44 - font.getlength(number))
        draw.text((left + 32, top + LINE // 2), fitting, INK, font, "lm")
    for i, note in enumerate(notes, start=lines):
        draw.text((0, LINE * i + LINE // 2), shorten(note, font, width), INK, font, "lm")
    return picture


def _photo(prediction: Prediction, side: int) -> Image.Image:
    scale = side / max(prediction.width, prediction.height)
    size = (max(1, round(prediction.width * scale)), max(1, round(prediction.height * scale)))
    return Image.fromarray(prediction.image).resize(size, RESAMPLE)


def _outline(picture: Image.Image, labels: np.ndarray) -> None:
    """Draws a thin light line where labels change: colours alone need not tell neighbours apart."""
    large = np.asarray(
        Image.fromarray(labels.astype(np.int32)).resize(picture.size, Image.Resampling.NEAREST)
    )
    edge = np.zeros(large.shape, bool)
    edge[:, 1:] |= large[:, 1:] != large[:, :-1]
    edge[1:] |= large[1:] != large[:-1]
    picture.paste(PAPER, mask=Image.fromarray(edge.astype(np.uint8) * 255))


def _draw_box(picture: Image.Image, region: NamedRegion, scale: float, colour: Colour) -> None:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
    x0, y0, x1, y1 = (value * scale for value in region.box)
    x0, y0 = max(0.0, min(x0, picture.width - 2)), max(0.0, min(y0, picture.height - 2))
    x1, y1 = min(max(x1, x0), picture.width - 1), min(max(y1, y0), picture.height - 1)
    draw.rectangle((x0, y0, x1, y1), outline=INK, width=5)
    draw.rectangle((x0 + 1, y0 + 1, max(x0 + 1, x1 - 1), max(y0 + 1, y1 - 1)), outline=colour, width=3)
    text = shorten(f"{plain(region.name)} {region.probability:.0%}", font, picture.width - 8)
    wide = font.getlength(text) + 8
    left = min(x0, picture.width - wide)
    # Above the box where there is room, else inside.
    top = y0 - LINE + 4 if y0 >= LINE else y0 + 5
    draw.rectangle((left, top, left + wide, top + LINE - 5), fill=PAPER, outline=INK)
    draw.text((left + 4, top + (LINE - 5) / 2), text, INK, font, "lm")


def _area(region: NamedRegion) -> float:
    x0, y0, x1, y1 = region.box
    return (x1 - x0) * (y1 - y0)


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{high:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"


def heat_names(prediction: Prediction, asked: Sequence[str], count: int) -> list[str]:
    """The names that get a heat map: those asked for, else the `count` that cover most of the photo."""
    return list(asked) or list(prediction.shares())[:count]


def pictures_of(prediction: Prediction, heat: Sequence[str], side: int) -> Mapping[str, Image.Image]:
    """All pictures of a prediction by their kind: segmentation, boxes, heat-NAME.

    Args:
        prediction: The prediction.
        heat: Names with a heat map.
        side: Longest side of the photo in each picture, in pixels.
    """
    return {
        "segmentation": draw_segmentation(prediction, side),
        "boxes": draw_boxes(prediction, side),
        **{f"heat-{name}": draw_heat(prediction, name, side) for name in heat},
    }
