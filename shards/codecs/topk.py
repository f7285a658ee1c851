"""Distributions over categories, as their most likely classes and the mass of all others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from densecli.shards.codecs.base import CODECS, FLOATS, Errors, largest, mean
from densecli.shards.quantise import ALL, Arrays, Some, halves
from densecli.shards.specs import CodecSpec

_LAST_ID = np.uint64(2**16 - 1)


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Distributions over D classes: the most likely classes of each row, and the mass of all others.

    A confident row needs few classes and an uncertain one many; the same number for all would cut off the
    uncertain rows, from which distillation learns most. So the N rows of a sample together keep k N classes,
    the most likely ones over all rows, and more where a row's tail would otherwise exceed `tail_mass`. The
    tail's mass is stored for things and stuff apart, because decoupled losses renormalise over things. With
    k >= D and fp32 nothing is lost.

    Attributes:
        things: Whether each of the D classes is a thing.
        k: Number of classes that a row keeps on average.
        tail_mass: Largest probability that the classes a row drops may have together. `rest` in specs.
        dtype: fp16 or fp32, of the probabilities.
    """

    things: tuple[bool, ...]
    k: int = 20
    tail_mass: float = 5e-4
    dtype: str = "fp16"

    @property
    def spec(self) -> CodecSpec:
        """See `Codec.spec`."""
        return {
            "name": "topk",
            "things": list(self.things),
            "k": self.k,
            "rest": self.tail_mass,
            "dtype": self.dtype,
        }

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """See `Codec.blank`. Of (N, D) distributions of which no row needs more than k classes."""
        n, k = shape[0], min(self.k, shape[1])
        return {
            "count": np.zeros(n, np.uint16),
            "ids": np.zeros(n * k, np.uint16),
            "p": np.zeros(n * k, FLOATS[self.dtype]),
            "rest": np.zeros((n, 2), np.float32),
        }

    def encode(self, p: np.ndarray) -> tuple[Arrays, Errors]:
        """Encodes (N, D) probabilities, float32.

        Returns:
            `count` uint16 (N,), the number of classes that each row keeps, at least 1; row after row, `ids`
            uint16 (M,) by falling probability (ties by id) and `p` (M,), their probabilities; `rest` float32
            (N, 2), the thing and the stuff mass of the tail. And their `error`.
        """
        things = np.array(self.things)
        order, falling = _falling(p)
        wide = falling.astype(np.float64)
        kept = self._kept(falling, wide)
        tail, is_thing = np.where(kept, 0, wide), things[order]
        mass = np.stack([(tail * side).sum(1) for side in (is_thing, ~is_thing)], axis=1)
        arrays = {
            "count": kept.sum(1).astype(np.uint16),
            "ids": order[kept],
            "p": halves(falling[kept]) if self.dtype == "fp16" else falling[kept],
            "rest": mass.astype(np.float32),
        }
        return arrays, self.error(arrays, p)

    def _kept(self, falling: np.ndarray, wide: np.ndarray) -> np.ndarray:
        """Mask of the probabilities to keep, of (N, D) with falling rows: the first ones of each row.

        Args:
            falling: float32.
            wide: The same as float64.
        """
        n, d = falling.shape
        # The tail's mass if a row ended before each class.
        kept = np.cumsum(wide[:, ::-1], axis=1)[:, ::-1] > self.tail_mass
        kept[:, :1] = True
        spare = n * min(self.k, d) - int(kept.sum())
        if spare > 0:
            kept.flat[_likeliest(np.where(kept, -1, falling).ravel(), spare)] = True
        return kept

    def error(self, arrays: Mapping[str, np.ndarray], p: np.ndarray) -> Errors:
        """How far arrays are from (N, D) probabilities.

        `max_tv` and `mean_tv`: the largest and the mean total variation between what is decoded and the exact
        distribution with its tail merged. `max_rest` and `mean_rest`: the largest and the mean tail mass.
        """
        decoded, tail = self.decode(arrays), p.astype(np.float64)
        n, d = p.shape
        # Only what is stored is not 0 in both.
        stored = np.repeat(np.arange(n), arrays["count"]), arrays["ids"]
        kept, exact = decoded[stored], tail[stored]
        seen = kept > 0
        tail[stored] = np.where(seen, 0, exact)
        sides = np.array(self.things), ~np.array(self.things)
        # Not a product of matrices, whose sum depends on the number of threads.
        mass = np.stack([np.einsum("nd,d->n", tail, side.astype(np.float64)) for side in sides], axis=1)
        variation = np.bincount(stored[0], np.where(seen, np.abs(kept - exact), 0), minlength=n)
        variation = (variation + np.abs(decoded[:, d:] - mass).sum(1)) / 2
        return {
            "max_tv": largest(variation),
            "mean_tv": mean(variation),
            "max_rest": largest(mass.sum(1)),
            "mean_rest": mean(mass.sum(1)),
        }

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """(R, D + 2) float32 of some rows: the classes kept (0 for others), the tail's thing and stuff mass.

        Rows sum to 1. The argmax over the classes is the first id stored. Raises ValueError for a row that is
        no distribution, which `encode` never writes.
        """
        if not all(arrays[name].dtype.kind in "iu" for name in ("count", "ids")):
            raise ValueError("its counts or ids are no whole numbers")
        count = arrays["count"].astype(np.int64)
        start = (np.cumsum(count) - count)[rows]
        count = count[rows]
        row = np.repeat(np.arange(len(count)), count)
        # Places in the arrays of all rows: the first row's own, then the second's, ...
        place = np.arange(len(row)) + np.repeat(start - (np.cumsum(count) - count), count)
        out = np.zeros((len(count), len(self.things) + 2))
        out[row, arrays["ids"][place]] = arrays["p"][place]
        out[:, -2:] = arrays["rest"][rows]
        sums = out.sum(1, keepdims=True)
        if not (np.isfinite(sums) & (sums > 0)).all():
            raise ValueError("the probabilities of a row have no finite sum above 0")
        if arrays["p"].dtype == np.float16:
            out /= sums
        decoded = out.astype(np.float32)
        # Rounding may have made the two largest equal; the first id must stay the argmax.
        first, classes = arrays["ids"][start].astype(np.int64), decoded[:, :-2]
        wrong = np.flatnonzero(classes.argmax(1) != first)
        classes[wrong, first[wrong]] = np.nextafter(classes[wrong].max(1), np.float32(2))
        return decoded

    def decode_many(self, samples: Sequence[tuple[Mapping[str, np.ndarray], np.ndarray]]) -> np.ndarray:
        """What `decode` gives for some rows of each of several samples, one after the other.

        Args:
            samples: The arrays of each, and its rows.
        """
        for arrays, _ in samples:
            # A sample must not go on in the arrays of the next one.
            if not int(arrays["count"].sum(dtype=np.int64)) == len(arrays["ids"]) == len(arrays["p"]):
                raise ValueError("its counts do not add up to its ids")
        sizes = [len(arrays["count"]) for arrays, _ in samples]
        starts = np.cumsum([0, *sizes[:-1]])
        rows = np.concatenate([rows + start for (_, rows), start in zip(samples, starts, strict=True)])
        names = ("count", "ids", "p", "rest")
        return self.decode({n: np.concatenate([arrays[n] for arrays, _ in samples]) for n in names}, rows)


def _falling(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes (N, D) uint16 of each row by falling probability, ties by id, and these probabilities."""
    # The bits of floats that are not negative order them. With the ids below they are one number each, which
    # sorts several times as fast as a stable sort of indices.
    bits = np.ascontiguousarray(p, np.float32).view(np.uint32).astype(np.uint64)
    ids = np.arange(p.shape[1], dtype=np.uint64)
    keys = np.sort(bits << np.uint64(16) | (_LAST_ID - ids), axis=1)[:, ::-1]
    return ~keys.astype(np.uint16), (keys >> np.uint64(16)).astype(np.uint32).view(np.float32)


def _likeliest(p: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` largest of (M,) numbers; of equal ones the first."""
    least = np.partition(p, len(p) - count)[len(p) - count]
    larger = np.flatnonzero(p > least)
    return np.concatenate([larger, np.flatnonzero(p == least)[: count - len(larger)]])


@CODECS.register("topk", help="Distributions: the most likely classes and the mass of all others.")
def _from_options(*, rest: float, **options: Any) -> TopK:
    return TopK(tail_mass=rest, **options)
