"""Subsets of photos by key: nested, of the size asked for, and the same wherever they are computed."""

import random

import numpy as np
import pytest

from densecli.core.key_share import KeyRange, hashes_of_keys, share_of_key, shares_of_hashes

KEYS = [f"{i:012d}" for i in range(20_000)]
HASHES = hashes_of_keys(KEYS)


def test_share__is_fixed_for_ever():
    # Runs that were recorded with other subsets could not be compared any more.
    shares = [round(share_of_key(key, "photos-0"), 6) for key in ("000000000139", "sa_1", "é")]
    assert shares == [0.585319, 0.681215, 0.972579]


def test_share__does_not_depend_on_the_other_keys():
    shuffled = random.Random(0).sample(range(len(KEYS)), len(KEYS))
    there = dict(zip(KEYS, shares_of_hashes(HASHES, "a"), strict=True))
    again = shares_of_hashes(hashes_of_keys([KEYS[i] for i in shuffled]), "a")
    assert all(there[KEYS[i]] == share for i, share in zip(shuffled, again, strict=True))
    assert share_of_key(KEYS[7], "a") == there[KEYS[7]]


@pytest.mark.parametrize("share", [1 / 16, 0.25, 0.5, 0.9])
def test_range__holds_its_share_of_the_keys(share):
    held = KeyRange("photos-1", 0.0, share).holds(HASHES).mean()
    assert abs(held - share) < 4 * np.sqrt(share * (1 - share) / len(KEYS))


def test_range__a_smaller_one_lies_inside_a_larger_one():
    small, large = (KeyRange("photos-0", 0.0, share).holds(HASHES) for share in (1 / 8, 1 / 4))
    assert (small & large).sum() == small.sum() < large.sum()
    assert KeyRange("photos-0").holds(HASHES).all()


def test_range__two_salts_are_independent():
    one, two = (KeyRange(salt, 0.0, 0.3).holds(HASHES) for salt in ("photos-0", "holdout"))
    assert abs((one & two).mean() - 0.09) < 4 * np.sqrt(0.09 * 0.91 / len(KEYS))
