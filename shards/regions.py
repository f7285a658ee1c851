"""Region plans: which boxes of an image a teacher is asked about, and which of them one visit trains on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from shards.errors import DenseCLIError

# (rows, columns) of every grid: DenseVLM as its paper says, and as the code of DenseVLM and CLIPSelf does.
PAIRS: dict[str, tuple[tuple[int, int], ...]] = {
    "paper": tuple((m, n) for m in range(2, 7) for n in range(2, 7)),
    "densevlm": tuple((m, n) for m in range(2, 7) for n in range((m + 1) // 2 + 1, min(2 * m, 6) + 1)),
    "clipself": tuple((m, n) for m in range(1, 7) for n in range((m + 1) // 2, min(2 * m, 6) + 1)),
}
# CLIPSelf trains on this many cells of a view at most.
MAX_CELLS = {"clipself": 20}


@dataclass(frozen=True)
class Regions:
    """The boxes of one image: (N, 4) float32 xyxy normalised to the canvas, cut into views.

    View v is boxes[offsets[v] : offsets[v + 1]]; offsets is (views + 1,) int32.
    """

    boxes: np.ndarray
    offsets: np.ndarray

    @property
    def n_views(self) -> int:
        return len(self.offsets) - 1

    def view(self, v: int) -> np.ndarray:
        """Indices into `boxes` of view v."""
        return np.arange(self.offsets[v], self.offsets[v + 1])


@dataclass(frozen=True)
class GridPlan:
    """Every m x n grid of a pair set, tiling the un-padded photo; a view is one pair's cells, row by row."""

    pairs: str = "paper"

    @property
    def name(self) -> str:
        """The command-line name, and that of the column."""
        return f"grid-{self.pairs}"

    @property
    def spec(self) -> dict:
        """What the plan is, for a column key."""
        return {"plan": "grid", "pairs": [list(pair) for pair in PAIRS[self.pairs]]}

    @property
    def context(self) -> float:
        """How much larger than its box a teacher's crop is: not at all, cells have neighbours."""
        return 1.0

    @property
    def max_cells(self) -> int | None:
        """Cells one visit uses at most (None: all); applied when reading, so it is not part of the key."""
        return MAX_CELLS.get(self.pairs)

    def boxes(self, valid_box: np.ndarray | Sequence[float]) -> Regions:
        """The cells of every pair inside `valid_box`, (4,) normalised xyxy.

        Cell (i, j) of an m x n grid on a photo that covers w x h is
        (j w / n, i h / m, (j + 1) w / n, (i + 1) h / m).
        """
        grids = [_grid(m, n) for m, n in PAIRS[self.pairs]]
        x0, y0, x1, y1 = np.asarray(valid_box, np.float64)
        boxes = np.concatenate(grids) * np.array([x1 - x0, y1 - y0] * 2) + np.array([x0, y0] * 2)
        offsets = np.cumsum([0, *map(len, grids)])
        return Regions(boxes.astype(np.float32), offsets.astype(np.int32))


def _grid(rows: int, columns: int) -> np.ndarray:
    """(rows * columns, 4) float64 xyxy of the unit square's cells, row by row."""
    i, j = np.indices((rows, columns)).reshape(2, -1)
    return np.stack([j / columns, i / rows, (j + 1) / columns, (i + 1) / rows], axis=1)


def region_plan(name: str) -> GridPlan:
    """The plan of a command-line name: grid-paper, grid-densevlm or grid-clipself."""
    plans = {plan.name: plan for plan in map(GridPlan, PAIRS)}
    if name not in plans:
        raise DenseCLIError(
            f"There is no region plan named {name!r}.", hint=f"Known plans: {', '.join(plans)}."
        )
    return plans[name]


def _hash(text: str) -> int:
    return xxhash.xxh64_intdigest(text.encode())


def view_of(key: str, epoch: int, n_views: int) -> int:
    """The view of sample `key` in `epoch`: uniform over the views, and the same on every machine."""
    return _hash(f"view/{epoch}/{key}") % n_views


def stored_views(key: str, n_views: int, k: int, seed: int = 0) -> np.ndarray:
    """(min(k, n_views),) int32: the views of sample `key` that a teacher of crops is asked about.

    The first k in an order that key and seed alone decide: with a larger k the same ones come first.
    """
    ranks = [_hash(f"stored/{seed}/{view}/{key}") for view in range(n_views)]
    return np.argsort(ranks, kind="stable")[:k].astype(np.int32)


def cells_of_visit(key: str, epoch: int, n_cells: int, max_cells: int | None) -> np.ndarray:
    """Sorted indices of the cells, of a view of `n_cells`, that `key` trains on in `epoch`.

    A uniform subset of `max_cells` that depends on key and epoch alone (CLIPSelf draws 20 cells at random).
    """
    if max_cells is None or n_cells <= max_cells:
        return np.arange(n_cells)
    ranks = [_hash(f"cell/{epoch}/{cell}/{key}") for cell in range(n_cells)]
    return np.sort(np.argsort(ranks, kind="stable")[:max_cells])
