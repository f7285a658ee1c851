"""The order of an epoch: every sample once, a pure function of (seed, epoch)."""

from collections.abc import Iterator, Sequence

import numpy as np
import xxhash


def order(n_per_shard: Sequence[int], seed: int, epoch: int, window: int = 4) -> Iterator[np.ndarray]:
    """An epoch as (n, 2) int blocks of (shard, row): every sample once, a pure function of the arguments.

    The shards are shuffled and taken `window` at a time; a block is the shuffled samples of one window.
    """
    shuffled = _permutation(len(n_per_shard), seed, epoch, "shards")
    for first in range(0, len(shuffled), window):
        shards = shuffled[first : first + window]
        block = np.concatenate(
            [np.stack(np.broadcast_arrays(s, np.arange(n_per_shard[s])), axis=1) for s in shards]
        )
        yield block[_permutation(len(block), seed, epoch, f"window {first}")]


def _permutation(n: int, seed: int, epoch: int, what: str) -> np.ndarray:
    # Raw Philox words: numpy promises its bit streams for ever, its shuffles only until the next release.
    key = xxhash.xxh3_128_intdigest(f"{seed}/{epoch}/{what}".encode())
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")
