"""Random numbers that follow from a text, the same on every machine and with every release of numpy."""

import numpy as np
import xxhash


def random_words(key: str, count: int) -> np.ndarray:
    """Random numbers that follow from `key`: (count,) uint64.

    They are raw words of Philox (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011): numpy
    keeps its bit streams stable for ever, its distributions and shuffles only until the next release.
    """
    words: np.ndarray = np.random.Philox(key=xxhash.xxh3_128_intdigest(key.encode())).random_raw(count)
    return words


def random_order(key: str, count: int) -> np.ndarray:
    """A permutation of 0 to `count` - 1 that follows from `key`: (count,) int64."""
    return np.argsort(random_words(key, count), kind="stable")
