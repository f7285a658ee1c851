"""Where a key lies between 0 and 1: subsets of photos that follow from their keys alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash

HASH_BITS = 40
"""Bits of a key's XXH3-64 that its share follows from: those that the index of a store's keys holds."""
_U64 = np.uint64


def hashes_of_keys(keys: Sequence[str]) -> np.ndarray:
    """(n,) uint64, the first `HASH_BITS` bits of each key's XXH3-64."""
    hashes = [xxhash.xxh3_64_intdigest(key.encode()) >> (64 - HASH_BITS) for key in keys]
    return np.array(hashes, np.uint64)


def shares_of_hashes(hashes: np.ndarray, salt: str) -> np.ndarray:
    """Where keys lie, given what `hashes_of_keys` gives for them.

    Args:
        hashes: (n,) uint64.
        salt: What the subset is for. Subsets of different salts are independent.

    Returns:
        (n,) float64 in [0, 1), spread evenly. Keys below a bound are a subset of those below a larger one.
    """
    # The finaliser of SplitMix64 (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014).
    mixed = (hashes << _U64(64 - HASH_BITS)) ^ _U64(xxhash.xxh3_64_intdigest(salt.encode()))
    mixed = (mixed ^ (mixed >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> _U64(27))) * _U64(0x94D049BB133111EB)
    mixed ^= mixed >> _U64(31)
    shares: np.ndarray = (mixed >> _U64(11)) * 2.0**-53
    return shares


def share_of_key(key: str, salt: str) -> float:
    """Where one key lies; see `shares_of_hashes`."""
    return float(shares_of_hashes(hashes_of_keys([key]), salt)[0])


class KeyRange(NamedTuple):
    """The keys that lie between two bounds.

    Attributes:
        salt: What the range is for; see `shares_of_hashes`.
        low: Lower bound; a key at it is in the range.
        high: Upper bound; a key at it is not.
    """

    salt: str
    low: float = 0.0
    high: float = 1.0

    def holds(self, hashes: np.ndarray) -> np.ndarray:
        """(n,) bool, whether each key is in the range, given what `hashes_of_keys` gives."""
        shares = shares_of_hashes(hashes, self.salt)
        within: np.ndarray = (self.low <= shares) & (shares < self.high)
        return within


def within_all(hashes: np.ndarray, ranges: Sequence[KeyRange]) -> np.ndarray:
    """(n,) bool, whether each key is in every range, given what `hashes_of_keys` gives."""
    within = np.ones(len(hashes), np.bool_)
    for each in ranges:
        within &= each.holds(hashes)
    return within
