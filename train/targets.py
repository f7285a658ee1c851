"""The targets of one visit of a sample, from the arrays stored in a column. See `TargetKind.layout`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.shards.codecs import Codec
from densecli.shards.kinds import KINDS, Layout
from densecli.shards.regions import stored_views, view_of
from densecli.shards.store import Column

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """offsets: (V + 1,) of the sample's views. view: the one visited. cells: which of its boxes, sorted."""

    offsets: np.ndarray
    view: int
    cells: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Indices of the boxes among those of every view."""
        return self.offsets[self.view] + self.cells


def choose_view(
    key: str, epoch: int, n_views: int, targets: Iterable[Arrays], first: int | None = None
) -> int:
    """The view of `key` in `epoch`: `view_of` among those that every target has something to say about.

    first: only of the so many that come first where K views are stored, as if K were no larger; where every
    target holds all views, those that would be stored. Raises DenseCLIError where they have none in common.
    """
    stored = [arrays["views"][:first] for arrays in targets if "views" in arrays]
    if first and not stored:
        stored = [stored_views(key, n_views, first)]
    views = reduce(np.intersect1d, stored, np.arange(n_views))
    if not len(views):
        raise DenseCLIError(
            f"The columns to read have no view of sample {key} in common.",
            hint="Build them again for the same views.",
        )
    return int(views[view_of(key, epoch, len(views))])


class TargetReader:
    """Decodes the samples of one column."""

    def __init__(self, column: Column) -> None:
        """Raises DenseCLIError where no plug-in here knows the column's codec or kind of target."""
        self.codec: Codec = column.codec
        self.side = column.side
        self.layout: Layout = KINDS[column.target_kind].layout

    def read(self, arrays: Arrays, visit: Visit) -> np.ndarray:
        """float32: (R, C) of R boxes, (R, side * side, r) of their tokens, or (1, h, w, r) of a map."""
        if self.layout == "map":
            values = self.codec.decode(arrays)
            return values.reshape(1, *arrays["grid"], values.shape[1])
        sizes = np.diff(visit.offsets)
        views = arrays["views"] if self.layout == "views" else np.arange(len(sizes))
        [place] = np.flatnonzero(views == visit.view)
        rows = sizes[views[:place]].sum() + visit.cells
        if not self.side:
            return self.codec.decode(arrays, rows)
        tokens = (rows[:, None] * self.side**2 + np.arange(self.side**2)).flatten()
        values = self.codec.decode(arrays, tokens)
        return values.reshape(-1, self.side**2, values.shape[1])


def join(targets: list[np.ndarray]) -> np.ndarray:
    """Targets of several samples, one after the other. Factors of a lower rank get columns of zeros, which
    leave their Gram matrix as it is."""
    rank = max(target.shape[-1] for target in targets)
    none = [(0, 0)] * (targets[0].ndim - 1)
    return np.concatenate([np.pad(t, [*none, (0, rank - t.shape[-1])]) for t in targets])
