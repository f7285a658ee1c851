"""Region plans: which boxes of a photo teachers are asked about, and which of them a training visits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import xxhash

from densecli.core import fs
from densecli.core.documents import check
from densecli.core.errors import DenseCLIError
from densecli.shards.masks import Masks
from densecli.shards.proposals import HINT as PROPOSALS_HINT
from densecli.shards.proposals import Proposals, read_proposals
from densecli.shards.specs import RegionSpec

# (rows, columns) of every grid: those of DenseVLM's and DeCLIP's papers, then of DenseVLM's and CLIPSelf's
# code.
# `square` is for the generated world: cells of whole pixels, whose crops have no black bars. Its CLIPs have
# never seen such bars, and misname crops that have some twice as often.
PAIRS: dict[str, tuple[tuple[int, int], ...]] = {
    "paper": tuple((m, n) for m in range(2, 7) for n in range(2, 7)),
    "declip": tuple((m, n) for m in range(1, 7) for n in range(1, 7)),
    "densevlm": tuple((m, n) for m in range(2, 7) for n in range((m + 1) // 2 + 1, min(2 * m, 6) + 1)),
    "clipself": tuple((m, n) for m in range(1, 7) for n in range((m + 1) // 2, min(2 * m, 6) + 1)),
    "square": tuple((m, m) for m in (1, 2, 3, 4, 6)),
}
# Boxes of a photo that a store may ask its readers to compute.
_MOST_BOXES = 1 << 16
# Boxes that are kept for further photos, 16 MB. A canvas of 512 px has 1,023 sizes of photos, because one
# side is 512, and a photo has 400 boxes.
_MOST_KEPT = 1 << 20
# Most cells of a view that a visit trains on, as in CLIPSelf.
MAX_CELLS = {"clipself": 20}


@dataclass(frozen=True)
class Regions:
    """The regions of one photo, divided into views.

    Attributes:
        boxes: (N, 4) float32 xyxy normalised to the canvas.
        offsets: (views + 1,) int32; view v is boxes[offsets[v] : offsets[v + 1]].
        masks: The regions' masks, over which they are pooled; None if they are pooled over their boxes.
    """

    boxes: np.ndarray
    offsets: np.ndarray
    masks: Masks | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Regions":
        """The regions in stored arrays. Raises KeyError or ValueError for arrays that are none."""
        boxes, offsets = arrays["boxes"], arrays["offsets"]
        if boxes.dtype != np.float32 or boxes.shape != (len(boxes), 4) or not np.isfinite(boxes).all():
            raise ValueError("its boxes are not four finite numbers each")
        if offsets.dtype.kind not in "iu" or offsets.ndim != 1 or len(offsets) < 1:
            raise ValueError("its offsets are no list of whole numbers")
        if offsets[0] != 0 or offsets[-1] != len(boxes) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("its views do not divide its boxes")
        # Unsigned ones would become fractions where they are added to signed ones.
        masks = Masks.of(arrays, len(boxes)) if "rle" in arrays else None
        return cls(boxes, offsets.astype(np.int32), masks)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is stored."""
        masks = self.masks.arrays if self.masks else {}
        return {"boxes": self.boxes, "offsets": self.offsets, **masks}

    def coverage(self, grid: tuple[int, int], rows: np.ndarray | None = None) -> np.ndarray:
        """The share of each token's cell that regions cover, (R, h, w) float16; see `Masks.coverage`.

        Args:
            grid: h and w of the token grid.
            rows: The regions, by default all. They must have masks.

        Raises:
            ValueError: Masks are damaged.
        """
        assert self.masks
        return self.masks.coverage(self.boxes, np.arange(len(self.boxes)) if rows is None else rows, grid)

    @property
    def n_views(self) -> int:
        """Number of views."""
        return len(self.offsets) - 1

    def view(self, v: int) -> np.ndarray:
        """Indices in `boxes` of view v."""
        return np.arange(self.offsets[v], self.offsets[v + 1])


@dataclass(frozen=True)
class Grids:
    """Grids of m x n cells that tile a photo: their boxes follow from its size.

    Attributes:
        pairs: m and n of every grid.
    """

    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "Grids":
        """The grids in a column's spec. Raises ValueError if it has none, or too many boxes."""
        if spec.get("plan") != "grid":
            raise ValueError("its boxes do not follow from the photos")
        check(spec.get("pairs"), list[list[int]], "pairs")
        pairs = [tuple(pair) for pair in spec["pairs"]]
        if not pairs or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
            raise ValueError("its pairs are not rows and columns of grids")
        if sum(m * n for m, n in pairs) > _MOST_BOXES:
            raise ValueError(f"its grids have more than {_MOST_BOXES} boxes")
        return cls(tuple(pairs))

    def boxes(self, valid_box: np.ndarray | Sequence[float]) -> Regions:
        """The cells of all grids.

        Cell (i, j) of an m x n grid on a photo that covers w x h is
        (j w / n, i h / m, (j + 1) w / n, (i + 1) h / m).

        Args:
            valid_box: (4,) xyxy in 0..1: the part of the canvas that the photo covers.

        Returns:
            The boxes, read-only: photos of one size share them.
        """
        return self.by_valid_box(tuple(map(float, valid_box)))

    @property
    def by_valid_box(self) -> "Cells":
        """The function behind `boxes`, for readers that call it for every photo. Equal grids share one."""
        return _cells(self.pairs)

    def of_photo(self, about: Mapping[str, Any]) -> Regions:
        """The regions of a stored photo. `about`: its `.json` in the images column."""
        return self.boxes(about["valid"])


@dataclass(frozen=True)
class GridPlan:
    """Grids of m x n cells that tile the photo without its padding. A view is one grid, row by row.

    Attributes:
        pairs: Name of the set of (m, n) pairs in `PAIRS`.
    """

    pairs: str = "paper"

    @property
    def name(self) -> str:
        """Name on the command line and of the column."""
        return f"grid-{self.pairs}"

    @property
    def spec(self) -> RegionSpec:
        """The spec of its column, on which the column's key depends."""
        return {"plan": "grid", "pairs": [list(pair) for pair in PAIRS[self.pairs]]}

    @property
    def context(self) -> float:
        """How much larger than its box a teacher's crop is: cells have neighbours, so not at all."""
        return 1.0

    @property
    def max_cells(self) -> int | None:
        """Most cells that a visit uses, or None for all. Applied when reading, so not part of the key."""
        return MAX_CELLS.get(self.pairs)

    @property
    def grids(self) -> Grids:
        """The grids, which readers can compute."""
        return Grids(PAIRS[self.pairs])

    def boxes(self, valid_box: np.ndarray | Sequence[float]) -> Regions:
        """See `Grids.boxes`."""
        return self.grids.boxes(valid_box)

    def of_photo(self, about: Mapping[str, Any]) -> Regions:
        """See `Grids.of_photo`."""
        return self.grids.of_photo(about)


class Cells:
    """The cells of grids on photos of any size. Threads may share it."""

    def __init__(self, pairs: tuple[tuple[int, int], ...]) -> None:
        """Knows no photo yet. pairs: See `Grids`."""
        grids = [_grid(m, n) for m, n in pairs]
        self._cells = np.concatenate(grids)
        self._offsets = np.cumsum([0, *map(len, grids)]).astype(np.int32)
        self._offsets.flags.writeable = False
        self._most = _MOST_KEPT // len(self._cells)
        self._kept: dict[tuple[float, ...], Regions] = {}

    def __call__(self, valid: tuple[float, ...]) -> Regions:
        """See `Grids.boxes`."""
        return self._kept.get(valid) or self._new(valid)

    def keeps(self, valid: tuple[float, ...]) -> bool:
        """Whether all photos of this valid box share their regions."""
        return valid in self._kept

    def _new(self, valid: tuple[float, ...]) -> Regions:
        x0, y0, x1, y1 = valid
        sides, corner = np.array([x1 - x0, y1 - y0] * 2), np.array([x0, y0] * 2)
        boxes = (self._cells * sides + corner).astype(np.float32)
        boxes.flags.writeable = False
        found = Regions(boxes, self._offsets)
        return self._kept.setdefault(valid, found) if len(self._kept) < self._most else found


_cells = lru_cache(maxsize=16)(Cells)


def _grid(rows: int, columns: int) -> np.ndarray:
    """Cells of a grid on the unit square, row by row: (rows * columns, 4) float64 xyxy."""
    i, j = np.indices((rows, columns)).reshape(2, -1)
    return np.stack([j / columns, i / rows, (j + 1) / columns, (i + 1) / rows], axis=1)


@dataclass(frozen=True)
class ProposalPlan:
    """The boxes that a file proposes for each photo, in one view: at most 20, highest scores first.

    Boxes are cut at the photo's edge. Those with an area outside [8^2, 1024^2] pixels of the photo are left
    out, as in CLIPSelf. A photo that is not in the file has no boxes.

    Attributes:
        file: COCO-style json with `images` (id, file_name) and `annotations` (image_id, bbox as xywh in
            pixels, perhaps score).
    """

    file: str = ""
    name = "proposals"
    context = 1.5
    max_cells = None
    areas = (8**2, 1024**2)
    limit = 20

    @property
    def spec(self) -> RegionSpec:
        """The spec of its column, for the column's key. Raises DenseCLIError if the file is missing."""
        if not self.file:
            raise DenseCLIError("The region plan proposals needs a file of boxes.", hint=PROPOSALS_HINT)
        try:
            digest = hashlib.sha256(fs.read_bytes(self.file)).hexdigest()
        except FileNotFoundError as error:
            raise DenseCLIError(f"There is no file {self.file}.", hint=PROPOSALS_HINT) from error
        return {"plan": "proposals", "sha256": digest, "areas": list(self.areas), "limit": self.limit}

    def of_photo(self, about: Mapping[str, Any]) -> Regions:
        """See `GridPlan.of_photo`. Raises the errors of `read_proposals`."""
        scored = np.array(self.proposals.boxes.get(about["source"], []), np.float64).reshape(-1, 5)
        boxes = _corners(scored[np.argsort(-scored[:, 4], kind="stable"), :4], about)
        area = _area(boxes)
        kept = boxes[(area >= self.areas[0]) & (area <= self.areas[1])][: self.limit]
        return Regions(_on_canvas(kept, about), np.array([0, len(kept)], np.int32))

    @cached_property
    def proposals(self) -> Proposals:
        """The file. Raises the errors of `read_proposals`."""
        return read_proposals(self.file)


def _corners(xywh: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
    """(N, 4) float64 xyxy in pixels of the photo, cut at its edge."""
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    clipped: np.ndarray = np.clip(boxes, 0, [about["width"], about["height"]] * 2)
    return clipped


def _on_canvas(boxes: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
    """Pixels of the photo -> (N, 4) float32 normalised to the canvas."""
    x, y = about["valid"][2] / about["width"], about["valid"][3] / about["height"]
    scaled: np.ndarray = boxes * [x, y, x, y]
    return scaled.astype(np.float32)


def _area(boxes: np.ndarray) -> np.ndarray:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    area: np.ndarray = sides[:, 0] * sides[:, 1]
    return area


def _hash(text: str) -> int:
    return xxhash.xxh64_intdigest(text.encode())


def view_of(key: str, epoch: int, n_views: int) -> int:
    """The view of sample `key` in an epoch: uniform over the views, and the same on every machine."""
    return _hash(f"view/{epoch}/{key}") % n_views


def stored_views(key: str, n_views: int, k: int, seed: int = 0) -> np.ndarray:
    """The views of sample `key` that are stored if a teacher sees only some views.

    They are the first k in an order that follows from key and seed: a larger k adds views after them.

    Returns:
        (min(k, n_views),) int32.
    """
    ranks = [_hash(f"stored/{seed}/{view}/{key}") for view in range(n_views)]
    return np.argsort(ranks, kind="stable")[:k].astype(np.int32)


def cells_of_visit(key: str, epoch: int, n_cells: int, max_cells: int | None) -> np.ndarray:
    """Sorted indices of the cells of a view that sample `key` trains on in an epoch.

    A uniform subset that follows from key and epoch. CLIPSelf draws 20 cells at random.

    Args:
        key: Key of the sample.
        epoch: Counted from 0.
        n_cells: Number of cells in the view.
        max_cells: Size of the subset; None for all cells.
    """
    if max_cells is None or n_cells <= max_cells:
        return np.arange(n_cells)
    ranks = [_hash(f"cell/{epoch}/{cell}/{key}") for cell in range(n_cells)]
    return np.sort(np.argsort(ranks, kind="stable")[:max_cells])
