"""Shuffles the samples of an epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
import xxhash


def shuffled_blocks(n_per_shard: Sequence[int], seed: int, epoch: int, window: int) -> Iterator[np.ndarray]:
    """Yields the samples of an epoch, each once, in an order that depends only on the arguments.

    The shards are shuffled and taken `window` at a time. A block has the shuffled samples of one window.

    Args:
        n_per_shard: Number of samples in every shard.
        seed: Seed of the run.
        epoch: Counted from 0.
        window: Number of shards that are shuffled together.

    Yields:
        Blocks (n, 2) int of (shard, row).
    """
    shuffled = _permutation(len(n_per_shard), seed, epoch, "shards")
    for first in range(0, len(shuffled), window):
        shards = shuffled[first : first + window]
        block = np.concatenate(
            [np.stack(np.broadcast_arrays(s, np.arange(n_per_shard[s])), axis=1) for s in shards]
        )
        yield block[_permutation(len(block), seed, epoch, f"window {first}")]


def _permutation(n: int, seed: int, epoch: int, what: str) -> np.ndarray:
    # Raw Philox output: numpy keeps its bit streams stable for ever, but its shuffles only until a release.
    key = xxhash.xxh3_128_intdigest(f"{seed}/{epoch}/{what}".encode())
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")
