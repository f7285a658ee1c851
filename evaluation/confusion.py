"""Pictures of confusion matrices: a row for each true class, a column for each prediction, things first.

Shares of a row run from dark blue to yellow; see `core.drawing`.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densecli.core.drawing import INK, PAPER, draw_scale, heat_colours, upright_text
from densecli.core.tables import plain
from densecli.evaluation.region_counts import Classification

SIDE = 420  # px, about, of the matrix
LEAST = 3  # px a cell
NAMED = 11  # px a cell from which on classes have their names beside them
SPLIT = 4  # px between things and stuff
NAME_LIMIT = 32  # characters


def confusion_pictures(results: Sequence[Classification]) -> list[Image.Image]:
    """A picture of each result's confusion, all of the classes present or predicted in any of them."""
    categories = results[0].categories
    counts = [result.confusion[:, :-1] for result in results]
    seen = sum(c.sum(0) + c.sum(1) for c in counts) > 0
    thing = categories.thing_flags()
    order = np.concatenate([np.flatnonzero(seen & thing), np.flatnonzero(seen & ~thing)])
    names = [plain(categories.names[c], NAME_LIMIT) for c in order]
    return [_picture(_shares(c, order), names, int((seen & thing).sum())) for c in counts]


def _shares(counts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(D, D) counts -> (d, d) of `order`: of each true class's masks the share called so, or 0."""
    picked = counts[np.ix_(order, order)]
    shares: np.ndarray = picked / np.maximum(counts[order].sum(1, keepdims=True), 1)
    return shares


def _picture(shares: np.ndarray, names: Sequence[str], things: int) -> Image.Image:
    cell = max(SIDE // len(names), LEAST)
    font, small = ImageFont.load_default(16), ImageFont.load_default(min(cell + 1, 14))
    labelled = cell >= NAMED
    room = round(max(small.getlength(name) for name in names)) + 8 if labelled else 4
    left, top, side = 28 + room, 28 + room, cell * len(names) + SPLIT
    picture = Image.new("RGB", (left + side + 8, top + side + 44), PAPER)
    draw = ImageDraw.Draw(picture)
    starts = [i * cell + (SPLIT if i >= things else 0) for i in range(len(names))]
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
        if (last - first) * cell > font.getlength(f"called: {kind}"):
            middle = (starts[first] + starts[last - 1] + cell) / 2
            draw.text((left + middle, 4), f"called: {kind}", INK, font, "ma")
            upright_text(picture, f"true: {kind}", (14, round(top + middle)), font, anchor="m")
    draw_scale(picture, top + side + 10, "0", "all of the class", left)
    return picture
