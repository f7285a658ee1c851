"""Reads the targets of one view of a sample from the arrays in a column. See `TargetKind.layout`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.shards.codecs import Codec, TopK
from densecli.shards.kinds import KINDS, Layout
from densecli.shards.regions import stored_views, view_of
from densecli.shards.store import Column

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """The boxes of a sample that an epoch uses.

    Attributes:
        offsets: (V + 1,) start of each of the sample's views among its boxes.
        view: The view that is used.
        cells: Which of its boxes are used, sorted.
    """

    offsets: np.ndarray
    view: int
    cells: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Indices of the used boxes among all boxes of the sample."""
        rows: np.ndarray = self.offsets[self.view] + self.cells
        return rows


def choose_view(
    key: str, epoch: int, n_views: int, targets: Iterable[Arrays], first: int | None = None
) -> int:
    """Chooses the view of a sample for an epoch, among the views that every target holds.

    Args:
        key: Key of the sample.
        epoch: Counted from 0.
        n_views: Number of views in the region plan.
        targets: The sample's stored arrays of each target column.
        first: Uses only this many views of each target, as if no more had been stored. If every target holds
            all views, these are the ones that would have been stored. None uses all.

    Raises:
        DenseCLIError: The targets have no view in common.
    """
    stored = [arrays["views"][:first] for arrays in targets if "views" in arrays]
    if first and not stored:
        stored = [stored_views(key, n_views, first)]
    views = reduce(np.intersect1d, stored, np.arange(n_views))
    if not len(views):
        raise DenseCLIError(
            f"The columns to read have no view of sample {key} in common.",
            hint="Build them again with the same --views.",
        )
    return int(views[view_of(key, epoch, len(views))])


class TargetReader:
    """Decodes the targets in one column."""

    def __init__(self, column: Column) -> None:
        """Opens a column. Raises DenseCLIError if no plug-in knows its codec or kind of target."""
        self.codec: Codec = column.codec
        self.side = column.side
        self.layout: Layout = KINDS[column.target_kind].layout

    def read(self, arrays: Arrays, visit: Visit) -> np.ndarray:
        """Decodes the targets of the boxes that an epoch uses.

        Args:
            arrays: The sample's stored arrays.
            visit: The boxes; a map and what is about the whole photo are decoded whole.

        Returns:
            float32 (R, C) for R boxes, (R, side * side, r) for their tokens, (1, h, w, r) for a map, or
            (1, C) for the whole photo.
        """
        if self.layout == "image":
            return self.codec.decode(arrays)
        if self.layout == "map":
            values = self.codec.decode(arrays)
            return values.reshape(1, *arrays["grid"], values.shape[1])
        rows = self._rows(arrays, visit)
        if not self.side:
            return self.codec.decode(arrays, rows)
        tokens = (rows[:, None] * self.side**2 + np.arange(self.side**2)).flatten()
        values = self.codec.decode(arrays, tokens)
        return values.reshape(-1, self.side**2, values.shape[1])

    @property
    def in_batches(self) -> bool:
        """Whether `read_batch` reads the targets of many samples faster than `read` one after the other."""
        return isinstance(self.codec, TopK) and self.layout not in ("image", "map") and not self.side

    def read_batch(self, samples: Sequence[tuple[Arrays, Visit]]) -> np.ndarray:
        """What `read` gives for several samples, one after the other; see `in_batches`."""
        assert isinstance(self.codec, TopK)
        return self.codec.decode_many([(arrays, self._rows(arrays, visit)) for arrays, visit in samples])

    def _rows(self, arrays: Arrays, visit: Visit) -> np.ndarray:
        """The places of a visit's boxes among those that a sample's arrays are about."""
        sizes = np.diff(visit.offsets)
        views = arrays["views"] if self.layout == "views" else np.arange(len(sizes))
        [place] = np.flatnonzero(views == visit.view)
        rows: np.ndarray = sizes[views[:place]].sum() + visit.cells
        return rows


def join(targets: list[np.ndarray]) -> np.ndarray:
    """Concatenates the targets of several samples.

    Factors of a lower rank are padded with zero columns, which does not change their Gram matrix.
    """
    rank = max(target.shape[-1] for target in targets)
    if all(target.shape[-1] == rank for target in targets):
        return np.concatenate(targets)
    joined = np.zeros((sum(map(len, targets)), *targets[0].shape[1:-1], rank), np.float32)
    for rows, target in zip(np.split(joined, np.cumsum([*map(len, targets)])[:-1]), targets, strict=True):
        rows[..., : target.shape[-1]] = target
    return joined
