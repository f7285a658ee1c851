"""Pictures of confusion matrices: a row for each true class, a column for each prediction, things first.

Colours run from dark blue (none of the row) to yellow (all of it); see `core.drawing`.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densecli.core.drawing import INK, PAPER, draw_scale, heat_colours, upright_text
from densecli.core.tables import plain
from densecli.evaluation.region_counts import Classification

MATRIX_SIDE = 420  # px, about
MIN_CELL = 3  # px
MIN_NAMED_CELL = 11  # px; smaller cells have no class names beside them
GAP = 4  # px between things and stuff
NAME_LIMIT = 32  # characters


def confusion_pictures(results: Sequence[Classification]) -> list[Image.Image]:
    """Draws each result's confusion matrix, all with the same classes: those present or predicted in any."""
    categories = results[0].categories
    counts = [result.confusion[:, :-1] for result in results]
    seen = sum(c.sum(0) + c.sum(1) for c in counts) > 0
    thing = categories.thing_flags()
    order = np.concatenate([np.flatnonzero(seen & thing), np.flatnonzero(seen & ~thing)])
    names = [plain(categories.names[c], NAME_LIMIT) for c in order]
    return [_picture(_shares(c, order), names, int((seen & thing).sum())) for c in counts]


def _shares(counts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(D, D) counts -> (d, d) shares of each true class's masks, for the classes of `order`."""
    picked = counts[np.ix_(order, order)]
    shares: np.ndarray = picked / np.maximum(counts[order].sum(1, keepdims=True), 1)
    return shares


def _picture(shares: np.ndarray, names: Sequence[str], things: int) -> Image.Image:
    cell = max(MATRIX_SIDE // len(names), MIN_CELL)
    font, small = ImageFont.load_default(16), ImageFont.load_default(min(cell + 1, 14))
    labelled = cell >= MIN_NAMED_CELL
    room = round(max(small.getlength(name) for name in names)) + 8 if labelled else 4
    left, top, side = 28 + room, 28 + room, cell * len(names) + GAP
    picture = Image.new("RGB", (left + side + 8, top + side + 44), PAPER)
    draw = ImageDraw.Draw(picture)
    starts = [i * cell + (GAP if i >= things else 0) for i in range(len(names))]
    heat = heat_colours(shares)
    for i, y in enumerate(starts):
        for j, x in enumerate(starts):
            box = (left + x, top + y, left + x + cell - 1, top + y + cell - 1)
            draw.rectangle(box, fill=tuple(heat[i, j].tolist()))
    if labelled:
        for name, start in zip(names, starts, strict=True):
            middle = start + cell / 2
            draw.text((left - 6, top + middle), name, INK, small, "rm")
            upright_text(picture, name, (round(left + middle), top - 6), small)
    blocks = (("things", 0, things), ("stuff", things, len(names)))
    for kind, first, last in blocks:
        if (last - first) * cell > font.getlength(f"predicted: {kind}"):
            middle = (starts[first] + starts[last - 1] + cell) / 2
            draw.text((left + middle, 4), f"predicted: {kind}", INK, font, "ma")
            upright_text(picture, f"true: {kind}", (14, round(top + middle)), font, anchor="m")
    draw_scale(picture, top + side + 10, "0", "all of the class", left)
    return picture
