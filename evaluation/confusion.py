"""Pictures of confusion matrices: a row for each true class, a column for each prediction, things first.

Drawn by matplotlib, which is imported when a picture is drawn. Colours run from dark blue (none of the row)
to yellow (all of it).
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from densecli.core.charts import drawn_with
from densecli.core.tables import plain
from densecli.evaluation.region_counts import Classification

MATRIX_SIDE = 420  # px, about
MIN_CELL = 3  # px
MIN_NAMED_CELL = 11  # px; smaller cells have no class names beside them
GAP = 4  # px between things and stuff
WIDEST_LABEL = 125  # px of "predicted: things"
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cell = max(MATRIX_SIDE // len(names), MIN_CELL)
    side = cell * len(names)
    with drawn_with({"font.size": 13}):
        # At 72 dots an inch a point is a pixel. What lies around the axes is added when the figure is saved.
        figure = Figure(figsize=(side / 72, side / 72), dpi=72)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        drawn = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.spines[:].set_visible(False)
        # Thin enough to leave something of the cells on both sides.
        for line in (axes.axhline, axes.axvline):
            line(things - 0.5, color="white", linewidth=max(1, min(GAP, cell // 5)))
        labelled = cell >= MIN_NAMED_CELL
        ticks, shown = (range(len(names)), names) if labelled else ([], [])
        axes.tick_params(length=0, labelsize=min(cell - 1, 12), top=True, labeltop=True, labelbottom=False)
        axes.set_xticks(ticks, shown, rotation=90)
        axes.set_yticks(ticks, shown)
        for kind, first, last in (("things", 0, things), ("stuff", things, len(names))):
            middle = (first + last) / 2 / len(names)
            if (last - first) * cell > WIDEST_LABEL:
                axes.text(
                    middle, -6 / side, f"predicted: {kind}", transform=axes.transAxes, ha="center", va="top"
                )
                axes.text(
                    1 + 6 / side,
                    1 - middle,
                    f"true: {kind}",
                    transform=axes.transAxes,
                    va="center",
                    rotation=90,
                )
        bar = figure.colorbar(
            drawn, cax=figure.add_axes((0, -52 / side, 1, 14 / side)), orientation="horizontal", ticks=[0, 1]
        )
        bar.ax.set_xticklabels(["0", "all of the class"])
        bar.ax.get_xticklabels()[1].set_horizontalalignment("right")
        bar.outline.set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.1)
    return Image.open(file).convert("RGB")
