"""Masks of regions: run lengths in COCO's compressed form, and the share of each token that a mask covers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MAX_SIDE = 1 << 16
"""Longest side of a mask, in pixels."""
_MAX_CHARACTERS = 7
"""Most characters of a run length. Five bits each, they hold every number of pixels of a mask."""


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The masks of a photo's regions, in the order of its boxes.

    Attributes:
        rle: (L,) uint8, the run lengths of one mask after another: `counts` as pycocotools compresses them.
        ends: (N,) uint32, where the run lengths of each mask end. A region without any covers its whole box.
        size: (2,) int32, height and width in pixels: those of the stored photo, so the longer one is the
            canvas's side.
    """

    rle: np.ndarray
    ends: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], regions: int) -> "Masks":
        """The masks in stored arrays, of so many regions. Raises KeyError or ValueError for others."""
        rle, ends, size = arrays["rle"], arrays["rle_ends"], arrays["size"]
        if rle.dtype != np.uint8 or rle.ndim != 1:
            raise ValueError("its run lengths are not bytes")
        if ends.dtype != np.uint32 or ends.shape != (regions,):
            raise ValueError("its masks are not as many as its boxes")
        if (ends[1:] < ends[:-1]).any() or (ends[-1] if regions else 0) != len(rle):
            raise ValueError("its masks do not divide their run lengths")
        if size.dtype != np.int32 or size.shape != (2,) or not 1 <= size.min() <= size.max() <= MAX_SIDE:
            raise ValueError("its masks have no size")
        return cls(rle=rle, ends=ends, size=size)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is stored."""
        return {"rle": self.rle, "rle_ends": self.ends, "size": self.size}

    def bitmap(self, row: int) -> np.ndarray | None:
        """(height, width) bool of one region's mask; None if it covers its box. Raises ValueError."""
        data, ends = self._of(np.array([row]))
        if not len(data):
            return None
        height, width = self.size.tolist()
        lengths, _ = run_lengths(data, ends, pixels=height * width)
        return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T

    def coverage(self, boxes: np.ndarray, rows: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """The share of each token's cell that a region covers.

        A cell of an h x w grid is a part of the canvas of 1/h by 1/w. The shares are exact areas: of the
        mask's pixels, or of the box where a region has no mask.

        Args:
            boxes: (N, 4) xyxy normalised to the canvas, of all regions.
            rows: (R,) the regions asked for.
            grid: h and w.

        Returns:
            (R, h, w) float16 in 0..1.

        Raises:
            ValueError: Run lengths are damaged, or a token is smaller than a pixel.
        """
        if max(grid) > self.size.max():
            raise ValueError("its masks have larger pixels than the tokens")
        share = np.empty((len(rows), *grid))
        data, ends = self._of(rows)
        masked = np.diff(ends, prepend=0) > 0
        x0, y0, x1, y1 = boxes[rows[~masked]].astype(np.float64).T
        tall, wide = (_before(b, n) - _before(a, n) for a, b, n in ((y0, y1, grid[0]), (x0, x1, grid[1])))
        share[~masked] = tall[:, :, None] * wide[:, None, :]
        share[masked] = _covered(data, ends[masked], self.size.tolist(), grid)
        return share.clip(0, 1).astype(np.float16)

    def _of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The run lengths of some regions one after another, and where those of each end."""
        starts = np.concatenate([[0], self.ends[:-1]]).astype(np.int64)[rows]
        ends = self.ends.astype(np.int64)[rows]
        pieces = [self.rle[first:end] for first, end in zip(starts, ends, strict=True)]
        return np.concatenate([*pieces, self.rle[:0]]), np.cumsum(ends - starts)


def _before(borders: np.ndarray, cells: int) -> np.ndarray:
    """(B, cells): the share of each of `cells` equal parts of 0..1 that lies before each border."""
    share: np.ndarray = (borders[:, None] * cells - np.arange(cells)).clip(0, 1)
    return share


def _covered(data: np.ndarray, ends: np.ndarray, size: list[int], grid: tuple[int, int]) -> np.ndarray:
    """`Masks.coverage` of M masks; see `run_lengths`.

    Pixels are counted down each column, then to the right. A mask is the sum over its runs of all pixels
    before their end, minus all before their start: whole columns to the left, and a part of one column. So
    the work is that of the runs, and no picture is made of them.
    """
    (height, width), (h, w), masks = size, grid, len(ends)
    lengths, firsts = run_lengths(data, ends, pixels=height * width)
    counts = np.diff(firsts, append=len(lengths))
    mask = np.repeat(np.arange(masks), counts)
    place = np.arange(len(lengths)) - firsts[mask]
    # A run outside of the mask ends where one inside of it starts; the last one may not.
    sign = np.where(place % 2, 1.0, -1.0) * (place < counts[mask] // 2 * 2)
    x, y = np.divmod(_ends(lengths, firsts), height)
    down, right = np.array([h, w]) / max(size)
    row, into_row = _cell(y * down)
    column, into_column = _cell(x * right)
    # The two columns of cells that a column of pixels lies in.
    first_part = np.minimum(1 - into_column, right)
    of_column = np.zeros((masks, w + 2, h + 1))
    for cell, part in ((column, first_part), (column + 1, right - first_part)):
        index = (mask * (w + 2) + cell) * (h + 1) + row
        of_column += _summed(index, sign * part, into_row, (masks, w + 2, h + 1))
    to_the_left = _summed(mask * (w + 1) + column, sign, into_column, (masks, w + 1))[:, :w]
    covered: np.ndarray = to_the_left[:, :, None] * _before(np.array([height / max(size)]), h)
    return (covered + of_column[:, :w, :h]).transpose(0, 2, 1)


def _cell(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cell that a position lies in, counted in cells, and how far in it lies."""
    cell = np.floor(position)
    return cell.astype(np.int64), position - cell


def _summed(index: np.ndarray, weight: np.ndarray, into: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sums of weights: each counts whole for the cells before its own, and `into` of it for that."""
    size = int(np.prod(shape))
    whole = np.bincount(index, weight, size).reshape(shape)
    after = np.flip(np.flip(whole, -1).cumsum(-1), -1) - whole
    found: np.ndarray = after + np.bincount(index, weight * into, size).reshape(shape)
    return found


def run_lengths(data: np.ndarray, ends: np.ndarray, *, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Decompresses the run lengths of masks, as pycocotools' rleFrString does, but trusts nothing.

    A run length is written in characters of five bits, the lowest first, and from the fourth of a mask on as
    the difference to the last but one.

    Args:
        data: (L,) uint8, the characters of all masks.
        ends: (M,) where those of each end.
        pixels: Number of pixels of a mask.

    Returns:
        (K,) int64 run lengths, of pixels outside and inside in turn, and (M,) where those of each mask begin.

    Raises:
        ValueError: They are damaged, or those of a mask are not of so many pixels.
    """
    if not len(ends):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    bits = data.astype(np.int64) - 48
    last = (bits & 32) == 0
    if not len(bits) or bits.min() < 0 or bits.max() > 63 or not last[ends - 1].all():
        raise ValueError("its run lengths are damaged")
    stops = np.flatnonzero(last)
    starts = np.concatenate([[0], stops[:-1] + 1])
    characters = stops + 1 - starts
    if characters.max() > _MAX_CHARACTERS:
        raise ValueError("it has a run longer than any mask")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, characters))
    values = np.add.reduceat((bits & 31) << shifts, starts)
    values -= np.where(bits[stops] & 16, 1 << (5 * characters), 0)
    behind = np.searchsorted(stops, ends - 1, side="right")
    firsts = np.concatenate([[0], behind[:-1]])
    place = np.arange(len(values)) - np.repeat(firsts, behind - firsts)
    odd = place % 2 == 1
    # The first run stands for itself; the others are sums of every second difference.
    of_odd = _ends(np.where(odd, values, 0), firsts)
    of_even = _ends(np.where(odd | (place == 0), 0, values), firsts)
    lengths = np.where(place == 0, values, np.where(odd, of_odd, of_even))
    totals = np.add.reduceat(lengths, firsts)
    if lengths.min() < 0 or lengths.max() > pixels or (totals != pixels).any():
        raise ValueError("its run lengths are not those of its pixels")
    return lengths, firsts


def _ends(lengths: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Sums of the values so far, which begin anew at each of `firsts`."""
    sums = np.cumsum(lengths)
    counts = np.diff(firsts, append=len(lengths))
    found: np.ndarray = sums - np.repeat(sums[firsts] - lengths[firsts], counts)
    return found
