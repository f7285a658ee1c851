"""Drawing with Pillow: titled panels in rows and columns, wrapped text, and a colour scale for values.

Colours are safe for colour-blind readers and differ in lightness, so that a grey print tells the same.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densecli.core.tables import plain

INK, PAPER = (25, 25, 25), (255, 255, 255)
THING, STUFF = (230, 159, 0), (0, 114, 178)
"""Orange and blue of the palette of Okabe and Ito."""
GAP = 10
"""Pixels between panels."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# cividis at 0, 1/4, 1/2, 3/4 and 1.
_CIVIDIS = np.array([(0, 34, 78), (67, 78, 108), (125, 124, 120), (188, 175, 111), (254, 232, 56)], float)


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Colours values from dark blue to yellow (cividis).

    Args:
        values: (h, w) in 0..1.

    Returns:
        (h, w, 3) uint8.
    """
    stops = np.linspace(0, 1, len(_CIVIDIS))
    channels = [np.interp(values, stops, channel) for channel in _CIVIDIS.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def draw_scale(picture: Image.Image, top: int, low: str, high: str, left: int = 0) -> None:
    """Draws the colours of `heat_colours` between the words for their two ends.

    Args:
        picture: Drawn on, over its whole width from `left` on.
        top: Where the 26 pixels of the scale begin.
        low: Text at the dark end.
        high: Text at the bright end.
        left: First column, in pixels.
    """
    font = ImageFont.load_default(16)
    draw = ImageDraw.Draw(picture)
    first, last = left + 8 + round(font.getlength(low)), picture.width - 8 - round(font.getlength(high))
    bar = Image.fromarray(heat_colours(np.linspace(0, 1, last - first)[None].repeat(16, 0)))
    picture.paste(bar, (first, top + 6))
    draw.text((left, top + 14), low, INK, font, "lm")
    draw.text((picture.width, top + 14), high, INK, font, "rm")


def side_by_side(panels: Mapping[str, Image.Image]) -> Image.Image:
    """Pictures in a row, each below its title."""
    return row([titled(title, panel) for title, panel in panels.items()])


def row(panels: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, GAP pixels apart, their top edges aligned."""
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    picture = Image.new("RGB", (width, max(panel.height for panel in panels)), PAPER)
    x = 0
    for panel in panels:
        picture.paste(panel, (x, 0))
        x += panel.width + GAP
    return picture


def column(panels: Sequence[Image.Image], *, gap: int = 0) -> Image.Image:
    """Pictures one below the other, `gap` pixels apart, their left edges aligned."""
    height = sum(panel.height for panel in panels) + gap * (len(panels) - 1)
    picture = Image.new("RGB", (max(panel.width for panel in panels), height), PAPER)
    y = 0
    for panel in panels:
        picture.paste(panel, (0, y))
        y += panel.height + gap
    return picture


def framed(title: str, panel: Image.Image) -> Image.Image:
    """A picture with a margin of GAP pixels below its title, which stays on one line."""
    picture = Image.new("RGB", (panel.width + 2 * GAP, panel.height + 34 + GAP), PAPER)
    font = ImageFont.load_default(17)
    ImageDraw.Draw(picture).text((GAP, GAP), shorten(plain(title), font, panel.width), INK, font)
    picture.paste(panel, (GAP, 34))
    return picture


def titled(title: str, panel: Image.Image) -> Image.Image:
    """A picture below its title, which takes as many lines as it needs."""
    font = ImageFont.load_default(17)
    lines = [shorten(line, font, panel.width) for line in wrap(plain(title).split(), font, panel.width)]
    height = 24 * len(lines) + 6
    picture = Image.new("RGB", (panel.width, panel.height + height), PAPER)
    ImageDraw.Draw(picture).multiline_text((0, 0), "\n".join(lines), INK, font)
    picture.paste(panel, (0, height))
    return picture


def fit_text(
    texts: Sequence[Sequence[Sequence[str]]], rooms: Sequence[tuple[float, float]], sizes: Sequence[int]
) -> tuple[list[str], int]:
    """Sets texts in the largest type that fits them all.

    Args:
        texts: The paragraphs of each text, as words; see `wrap`.
        rooms: Width and height of each text's place, in pixels.
        sizes: Type sizes, the largest first. What does not fit at the last one is cut short.

    Returns:
        The texts with their line breaks, and the size of the type.
    """
    for size in sizes:
        font = ImageFont.load_default(size)
        lines = [
            [line for words in text for line in wrap(words, font, width)]
            for text, (width, _) in zip(texts, rooms, strict=True)
        ]
        fits = all(
            len(found) * size * 1.25 <= height and all(font.getlength(line) <= width for line in found)
            for found, (width, height) in zip(lines, rooms, strict=True)
        )
        if fits:
            break
    cut = [
        "\n".join(shorten(line, font, width) for line in found)
        for found, (width, _) in zip(lines, rooms, strict=True)
    ]
    return cut, size


def wrap(words: Sequence[str], font: Font, width: float) -> list[str]:
    """Lines of words, none wider than `width` pixels unless a single word is; at least one line.

    A word that ends in "-" joins the next one without a blank.
    """
    lines = [words[0] if words else ""]
    for word in words[1:]:
        joined = lines[-1] + ("" if lines[-1].endswith("-") else " ") + word
        if font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def shorten(text: str, font: Font, width: float) -> str:
    """The text, cut short with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
