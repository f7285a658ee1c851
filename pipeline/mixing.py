"""Mixes the distributions of several P-VLMs over the same categories: pure functions of arrays."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Mix = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(M, R, D) distributions of M P-VLMs and their weights (M,), which sum to 1 -> (R, D)."""


def with_tail_spread(p: np.ndarray, things: np.ndarray) -> np.ndarray:
    """Spreads the tail mass of stored distributions evenly over the classes that they do not name.

    Args:
        p: (R, D + 2) as `TopK.decode` gives them: D classes, the tail of things, the tail of stuff.
        things: (D,) bool, which classes are things.

    Returns:
        (R, D) float64, rows sum to 1.
    """
    named: np.ndarray = p[:, :-2].astype(np.float64)
    for side, tail in ((things, p[:, -2]), (~things, p[:, -1])):
        unnamed = (named == 0) & side
        count = unnamed.sum(axis=1)
        named += np.where(unnamed, (tail / np.maximum(count, 1))[:, None], 0)
    named /= named.sum(axis=1, keepdims=True)
    return named


def average(p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of the distributions; see `Mix`."""
    mixed: np.ndarray = np.tensordot(weights, p, axes=1)
    return mixed


def vote(p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of the weights that votes for each class: every P-VLM for its most probable; see `Mix`."""
    votes = np.eye(p.shape[2])[p.argmax(axis=2)]
    shares: np.ndarray = np.tensordot(weights, votes, axes=1)
    return shares


def agree(p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean where all name the same class first, elsewhere 1/D, which a training leaves out."""
    mixed = average(p, weights)
    mixed[~agreement(p)] = 1 / p.shape[2]
    return mixed


RULES: Mapping[str, Mix] = {"average": average, "vote": vote, "agree": agree}


def agreement(p: np.ndarray) -> np.ndarray:
    """(M, R, D) distributions -> (R,) bool: whether all name the same class as the most probable."""
    best = p.argmax(axis=2)
    same: np.ndarray = (best == best[:1]).all(axis=0)
    return same


def mix(
    stored: Sequence[np.ndarray], weights: np.ndarray, things: np.ndarray, rule: str
) -> tuple[np.ndarray, np.ndarray]:
    """Mixes the stored distributions of a photo's regions.

    Args:
        stored: (R, D + 2) of each of M P-VLMs; see `with_tail_spread`.
        weights: (M,), which sum to 1.
        things: (D,) bool, which classes are things.
        rule: Key of RULES.

    Returns:
        (R, D) float32 distributions, and (R,) bool, where all P-VLMs name the same class.
    """
    p = np.stack([with_tail_spread(each, things) for each in stored])
    return RULES[rule](p, weights).astype(np.float32), agreement(p)
