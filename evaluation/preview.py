"""A picture of what a teacher said: one view's cells on the photo with their retrieved labels and confidence.

Things are orange and stuff is blue (from the palette of Okabe and Ito, made for colour-blind readers); the
frames differ too, thick for things and thin for stuff, so that a grey print still tells them apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densecli.evaluation.affinity import INK, PAPER
from densecli.shards.geometry import Canvas

THING, STUFF = (230, 159, 0), (0, 114, 178)
GAP = 10  # px
TINT, VEIL = 0.3, 0.75
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
TYPE_SIZES = (22, 18, 16, 14, 12)


@dataclass(frozen=True, kw_only=True)
class View:
    """What one panel shows.

    `image` is the photo at canvas scale, uint8 (H, W, 3), padded or not; `boxes` (N, 4) are xyxy normalised
    to the canvas, with N `labels`, `thing` flags and `confidence` in 0..1. `kept`: which cells a loss learns
    from, all of them by default; the others are faint and without a label.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: Sequence[str]
    thing: Sequence[bool]
    confidence: Sequence[float]
    title: str = ""
    kept: Sequence[bool] | None = None


def contact_sheet(views: Sequence[View], columns: int = 3, min_side: int = 480) -> Image.Image:
    """Photos with their cells and titles in rows of `columns`, one legend below them all.

    The short side of each is enlarged to at least `min_side` px.
    """
    panels = [_panel(view, min_side) for view in views]
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) + GAP for row in rows]
    width = GAP + max(sum(panel.width + GAP for panel in row) for row in rows)
    legend = _legend(width - 2 * GAP, any(view.kept is not None for view in views))
    sheet = Image.new("RGB", (width, GAP + sum(heights) + legend.height + GAP), PAPER)
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        x = GAP
        for panel in row:
            sheet.paste(panel, (x, y))
            x += panel.width + GAP
        y += height
    sheet.paste(legend, (GAP, y))
    return sheet


def row_of(panels: Mapping[str, Image.Image]) -> Image.Image:
    """Pictures side by side, each below its title."""
    titled = [_titled(title, panel) for title, panel in panels.items()]
    width = sum(panel.width for panel in titled) + GAP * (len(titled) - 1)
    row = Image.new("RGB", (width, max(panel.height for panel in titled)), PAPER)
    x = 0
    for panel in titled:
        row.paste(panel, (x, 0))
        x += panel.width + GAP
    return row


def _panel(view: View, min_side: int) -> Image.Image:
    photo = Image.fromarray(view.image)
    scale = max(1.0, min_side / min(photo.size))
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    # The longest side is the canvas's side at every scale.
    boxes = Canvas(max(photo.size)).to_image(np.asarray(view.boxes, np.float32), *photo.size)
    cells = [tuple(round(float(v)) for v in box) for box in boxes]
    rows = [i for i in range(len(cells)) if view.kept is None or view.kept[i]]
    colours = [THING if view.thing[i] else STUFF for i in rows]
    dropped = Image.new("L", photo.size)
    for i in set(range(len(cells))) - set(rows):
        ImageDraw.Draw(dropped).rectangle(cells[i], fill=255)
    photo = Image.composite(Image.blend(photo, Image.new("RGB", photo.size, PAPER), VEIL), photo, dropped)
    tint = photo.copy()
    for i, colour in zip(rows, colours, strict=True):
        ImageDraw.Draw(tint).rectangle(cells[i], fill=colour)
    photo = Image.blend(photo, tint, TINT)
    draw = ImageDraw.Draw(photo)
    shown = [cells[i] for i in rows]
    texts, size = _typeset(shown, [view.labels[i] for i in rows], [view.confidence[i] for i in rows])
    font, halo = ImageFont.load_default(size), round(size / 10)
    for (x0, y0, x1, y1), colour, text in zip(shown, colours, texts, strict=True):
        frame = 4 if colour == THING else 2
        draw.rectangle((x0 + 1, y0 + 1, x1 - 2, y1 - 2), outline=colour, width=frame)
        # A hairline of paper, so that a frame shows on a photo of its own colour.
        draw.rectangle((x0 + 1 + frame, y0 + 1 + frame, x1 - 2 - frame, y1 - 2 - frame), outline=PAPER)
        centre = ((x0 + x1) / 2, (y0 + y1) / 2)
        draw.multiline_text(centre, text, PAPER, font, "mm", 2, "center", stroke_width=halo, stroke_fill=INK)
    return _titled(view.title, photo) if view.title else photo


def _titled(title: str, photo: Image.Image) -> Image.Image:
    font = ImageFont.load_default(17)
    lines = _wrap(title.split(), font, photo.width)
    height = 24 * len(lines) + 6
    panel = Image.new("RGB", (photo.width, photo.height + height), PAPER)
    ImageDraw.Draw(panel).multiline_text((0, 0), "\n".join(lines), INK, font)
    panel.paste(photo, (0, height))
    return panel


def _typeset(
    cells: Sequence[tuple[int, ...]], labels: Sequence[str], confidence: Sequence[float]
) -> tuple[list[str], int]:
    """Text of every cell and the largest type that fits them all; what fits at no size is cut short."""
    for size in TYPE_SIZES:
        font = ImageFont.load_default(size)
        texts, fits = [], True
        for (x0, y0, x1, y1), label, p in zip(cells, labels, confidence, strict=True):
            room = x1 - x0 - 14
            lines = [*_wrap(label.split(",")[0].replace("-", "- ").split(), font, room), f"{p:.0%}"]
            fits &= len(lines) * size * 1.25 <= y1 - y0 - 12 and all(
                font.getlength(line) <= room for line in lines
            )
            texts.append("\n".join(_shorten(line, font, room) for line in lines))
        if fits:
            break
    return texts, size


def _wrap(words: Sequence[str], font: Font, room: float) -> list[str]:
    lines = [words[0]]
    for word in words[1:]:
        joined = lines[-1] + ("" if lines[-1].endswith("-") else " ") + word
        if font.getlength(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _shorten(text: str, font: Font, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while len(text) > 1 and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"


def _legend(width: int, filtered: bool) -> Image.Image:
    legend = Image.new("RGB", (width, 26), PAPER)
    draw = ImageDraw.Draw(legend)
    font = ImageFont.load_default(16)
    x = 0
    for colour, line, text in ((THING, 4, "thing"), (STUFF, 2, "stuff")):
        faint = tuple(round(255 + TINT * (c - 255)) for c in colour)
        draw.rectangle((x, 2, x + 30, 22), fill=faint, outline=colour, width=line)
        draw.text((x + 38, 12), text, INK, font, "lm")
        x += 60 + round(font.getlength(text))
    text = "label and confidence of each cell" + ("; faint: not learned from" if filtered else "")
    draw.text((x, 12), _shorten(text, font, width - x), INK, font, "lm")
    return legend
