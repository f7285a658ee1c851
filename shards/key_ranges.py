"""Counts the samples of each shard whose keys are in some ranges."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np

from densecli.core.key_share import KeyRange, hashes_of_keys, within_all
from densecli.core.prefetch import prefetch
from densecli.shards.column import Column
from densecli.shards.key_index import samples_within
from densecli.shards.manifest import read_manifest
from densecli.shards.parted_column import PartedColumn
from densecli.shards.receipts import Receipt
from densecli.shards.tars import index_of

_THREADS, _WINDOW = 16, 64


def count_within(column: Column, ranges: Sequence[KeyRange]) -> np.ndarray:
    """(n,) int32, how many samples of each shard have a key in all of these ranges; see `counts_within`."""
    counts: np.ndarray = counts_within(column, [ranges])[0]
    return counts


def counts_within(column: Column, subsets: Sequence[Sequence[KeyRange]]) -> np.ndarray:
    """How many samples of each shard have a key in all ranges of each subset.

    The photos of a store have an index of their keys, which is one read. Without one, every receipt is read.

    Args:
        column: A finished column; boxes that are computed are none.
        subsets: The ranges of each subset.

    Returns:
        (subsets, n) int32.

    Raises:
        DenseCLIError: The index, the manifest or a receipt is damaged.
    """
    if isinstance(column, PartedColumn):

        def count_part(part: Column) -> np.ndarray:
            return counts_within(part, subsets)

        with closing(prefetch(count_part, column.parts, threads=_THREADS, window=_WINDOW)) as parts:
            return np.concatenate(list(parts), axis=1)
    manifest, names = read_manifest(column), column.shard_names
    if manifest is not None and manifest.keys_index is not None:
        return samples_within(
            column.url,
            subsets,
            samples=int(manifest.samples.sum()),
            shards=len(names),
            digest=manifest.keys_index,
        )

    def count(shard: str) -> list[int]:
        receipt = column.receipt(shard)
        assert isinstance(receipt, Receipt)  # the column is finished
        hashes = hashes_of_keys(index_of(column, shard, receipt).samples)
        return [int(within_all(hashes, ranges).sum()) for ranges in subsets]

    with closing(prefetch(count, names, threads=_THREADS, window=_WINDOW)) as counts:
        return np.array(list(counts), np.int32).reshape(-1, len(subsets)).T
