"""Codecs: how targets become small arrays. Each states its size before the run and its error after it.

`encode` measures the error on what `decode` returns, so quantisation is in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.errors import DenseCLIError
from shards.quantise import ALL, Arrays, Some, dequantise, quantise

Errors = dict[str, float]

_FLOATS = {"fp16": np.float16, "fp32": np.float32}
_BASIS = {"x": "basis", "scale": "basis_scale"}


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Distributions over D classes: of each row its most likely classes, as many as it takes to leave at most
    `rest`, and the mass of the others.

    A sure row takes a few classes and a doubtful one many: with the same number for all, doubtful rows lose
    what is distilled. things: for each of the D classes, whether it is a thing. The other mass is kept for
    thing and stuff apart, because decoupled losses renormalise over things. rest = 0 with fp32 is lossless.
    """

    things: tuple[bool, ...]
    rest: float = 5e-4
    dtype: str = "fp16"

    @property
    def spec(self) -> dict:
        return {"name": "topk", "things": list(self.things), "rest": self.rest, "dtype": self.dtype}

    def nbytes(self, shape: tuple[int, int]) -> int:
        """The most bytes that the arrays for (N, D) distributions can take: every class of every row."""
        n, d = shape
        return n * (d * (2 + np.dtype(_FLOATS[self.dtype]).itemsize) + 2 + 2 * 4)

    def encode(self, p: np.ndarray) -> tuple[Arrays, Errors]:
        """(N, D) probabilities.

        Arrays: `count` uint16 (N,), the classes that each row names, 1 at least; row after row, `ids` uint16
        (M,) by falling probability (equal ones by id) and `p` (M,); `rest` float32 (N, 2) = thing and stuff
        mass of the classes not named. Errors: the largest and the mean total variation of what is decoded,
        and mass not named.
        """
        things = np.array(self.things)
        order = np.argsort(-p, axis=1, kind="stable")
        falling = np.take_along_axis(p, order, axis=1)
        # What a row would leave if it ended before each class.
        left = np.cumsum(falling[:, ::-1], axis=1, dtype=np.float64)[:, ::-1]
        named = left > self.rest
        named[:, :1] = True
        others = np.where(named, 0, falling.astype(np.float64))
        is_thing = things[order]
        rest = np.stack([(others * side).sum(1) for side in (is_thing, ~is_thing)], axis=1)
        arrays = {
            "count": named.sum(1).astype(np.uint16),
            "ids": order[named].astype(np.uint16),
            "p": falling[named].astype(_FLOATS[self.dtype]),
            "rest": rest.astype(np.float32),
        }
        decoded = self.decode(arrays).astype(np.float64)
        off = np.abs(np.take_along_axis(decoded, order, axis=1) - np.where(named, falling, 0)).sum(1)
        variation = (off + np.abs(decoded[:, -2:] - rest).sum(1)) / 2
        return arrays, {
            "max_tv": _max(variation),
            "mean_tv": _mean(variation),
            "max_rest": _max(others.sum(1)),
            "mean_rest": _mean(others.sum(1)),
        }

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """(R, D + 2) float32 of some rows: the classes named, 0 for the others, then the mass of the other
        things and of other stuff. Rows sum to 1; the argmax of the classes is the first id."""
        count = arrays["count"].astype(np.int64)
        start = (np.cumsum(count) - count)[rows]
        count = count[rows]
        row = np.repeat(np.arange(len(count)), count)
        # Places in the arrays of all rows: the first row's own, then the second's, ...
        place = np.arange(len(row)) + np.repeat(start - (np.cumsum(count) - count), count)
        out = np.zeros((len(count), len(self.things) + 2))
        out[row, arrays["ids"][place]] = arrays["p"][place]
        out[:, -2:] = arrays["rest"][rows]
        if arrays["p"].dtype == np.float16:
            out /= out.sum(1, keepdims=True)
        decoded = out.astype(np.float32)
        # Rounding may have made the first two equal; the first id is the argmax.
        first, named = arrays["ids"][start].astype(np.int64), decoded[:, :-2]
        wrong = np.flatnonzero(named.argmax(1) != first)
        named[wrong, first[wrong]] = np.nextafter(named[wrong].max(1), np.float32(2))
        return decoded


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Embeddings: int8 with one fp32 scale a row, fp16, or fp32 (lossless)."""

    dtype: str = "int8"

    @property
    def spec(self) -> dict:
        return {"name": "rows", "dtype": self.dtype}

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Bytes of the arrays for (N, C) rows."""
        n, c = shape
        return n * (c + 4) if self.dtype == "int8" else n * c * np.dtype(_FLOATS[self.dtype]).itemsize

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """(N, C) rows. Arrays: `x` (N, C), and for int8 `scale` float32 (N,).

        Errors: the largest absolute one, and the mean of 1 - cosine over the rows.
        """
        arrays = quantise(x, np.float32) if self.dtype == "int8" else {"x": x.astype(_FLOATS[self.dtype])}
        exact, decoded = x.astype(np.float64), self.decode(arrays).astype(np.float64)
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(decoded, axis=1)
        # A zero row has no direction to lose.
        cosine = np.divide((exact * decoded).sum(1), norms, out=np.ones(len(x)), where=norms > 0)
        return arrays, {"max_abs": _max(np.abs(exact - decoded)), "mean_cosine": _mean(1 - cosine)}

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """(R, C) float32 of some rows."""
        return dequantise(arrays, rows)


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Token maps, for their Gram matrix: the first `rank` columns of U s of x = U s V^T.

    With `rmse` in place of `rank`, each map has as few of them, a multiple of 8, as keep the RMSE of its Gram
    matrix. Because RoIAlign is linear and V orthonormal, RoIAlign(F) RoIAlign(F)^T is a region's Gram matrix
    as well: one factor serves every box. int8 has one fp16 scale a token; rows are not unit norm.
    """

    rank: int | None = 64
    rmse: float | None = None
    dtype: str = "int8"

    def __post_init__(self) -> None:
        if (self.rank is None) == (self.rmse is None):
            raise ValueError("LowRank takes either a rank or an rmse")

    @property
    def spec(self) -> dict:
        return {"name": "lowrank", "rank": self.rank, "rmse": self.rmse, "dtype": self.dtype}

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Bytes of the arrays for (N, C) tokens; with `rmse` the most it can be."""
        return self._nbytes(shape[0], min(self.rank or shape[1], *shape))

    def _nbytes(self, n: int, c: int) -> int:
        return n * (c + 2) if self.dtype == "int8" else n * c * np.dtype(_FLOATS[self.dtype]).itemsize

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """(N, C) tokens, of unit norm where the Gram matrix is to hold cosines.

        Arrays: `x` (N, r) with r = min(rank, N, C), and for int8 `scale` float16 (N,). Errors of the Gram
        matrix: `rmse` of its entries; `row_norm`, the mean norm of its rows, which bounds the change of
        DeCLIP's context loss (mean over rows of ||R_vfm - R_student||); `rmse_truncation`, the part of rmse
        that the rank alone costs, exact from the tail of s^4; `max_rmse` and `max_row_norm`, the same of
        the worst map; `max_abs`, the largest error of an entry, which bounds that of any region's entry:
        RoIAlign takes means with weights that sum to 1 at most. Raises DenseCLIError where `rmse` is below
        what `dtype` can keep.
        """
        exact = x.astype(np.float64)
        factor, tails = _factor(exact)
        arrays = self._store(factor[:, : self.rank]) if self.rank else self._within(exact, factor, tails)
        kept = dequantise(arrays).astype(np.float64)
        gram_error = kept @ kept.T - exact @ exact.T
        rmse = float(np.sqrt(np.mean(gram_error**2)))
        row_norm = _mean(np.linalg.norm(gram_error, axis=1))
        return arrays, {
            "rmse": rmse,
            "max_rmse": rmse,
            "row_norm": row_norm,
            "max_row_norm": row_norm,
            "max_abs": _max(np.abs(gram_error)),
            "rmse_truncation": float(np.sqrt(tails[arrays["x"].shape[1]])) / len(x),
        }

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """(R, r) float32 F of some tokens, with F F^T their Gram matrix."""
        return dequantise(arrays, rows)

    def _store(self, factor: np.ndarray) -> Arrays:
        if self.dtype == "int8":
            return quantise(factor, np.float16)
        return {"x": factor.astype(_FLOATS[self.dtype])}

    def _within(self, exact: np.ndarray, factor: np.ndarray, tails: np.ndarray) -> Arrays:
        """The fewest columns, a multiple of 8 or all, that keep `rmse` after quantisation."""
        assert self.rmse is not None
        full = factor.shape[1]
        for rank in (*range(8, full, 8), full):
            # What is cut off alone is too much: no need to quantise.
            if np.sqrt(tails[rank]) / len(exact) > self.rmse:
                continue
            arrays = self._store(factor[:, :rank])
            if _gram_rmse(dequantise(arrays).astype(np.float64), exact) <= self.rmse:
                return arrays
        raise DenseCLIError(
            f"Factors stored as {self.dtype} cannot keep an RMSE of {self.rmse:g}.",
            hint="Ask for a larger one, or for fp16 or fp32.",
        )


class Features(LowRank):
    """Token maps themselves, x ~ F V: the F of `LowRank`, and the basis V that turns it back into tokens.

    V is the least-squares fit to F as it is stored, so that it makes up for part of the rounding; it is
    stored in the same way. RoIAlign is linear: RoIAlign(F) V is that of the tokens.
    """

    @property
    def spec(self) -> dict:
        return {**super().spec, "name": "features"}

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Bytes of the arrays for (N, C) tokens; with `rmse` the most it can be."""
        return super().nbytes(shape) + self._nbytes(min(self.rank or shape[1], *shape), shape[1])

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """(N, C) tokens of unit norm.

        Arrays: those of `LowRank`; `basis` (r, C), and for int8 `basis_scale` float16 (r,). Errors: those of
        `LowRank`, which are F's; and of ||x - F V||, which bounds the error of a token's cosine with any
        text, `norm`, the root mean square, and `max_norm`.
        """
        arrays, errors = super().encode(x)
        factor, exact = dequantise(arrays).astype(np.float64), x.astype(np.float64)
        basis = self._store(np.linalg.lstsq(factor, exact, rcond=None)[0])
        arrays |= {_BASIS[name]: array for name, array in basis.items()}
        norms = np.linalg.norm(self.decode(arrays) - exact, axis=1)
        return arrays, {**errors, "norm": float(np.sqrt(_mean(norms**2))), "max_norm": _max(norms)}

    def factors(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """F (N, r) and V (r, C), float32."""
        basis = {name: arrays[stored] for name, stored in _BASIS.items() if stored in arrays}
        return dequantise(arrays), dequantise(basis)

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """(R, C) float32 of some tokens, not quite of unit norm."""
        factor, basis = self.factors(arrays)
        return factor[rows] @ basis


def _factor(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """U s (N, m) float64 of x = U s V^T with m = min(N, C), and for r = 0..m the sum of s^4 beyond r."""
    n, c = x.shape
    # The smaller of the two Gram matrices has every non-zero s^2. eigh sorts them rising.
    squares, vectors = np.linalg.eigh(x @ x.T if n <= c else x.T @ x)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    factor = vectors * np.sqrt(np.maximum(squares, 0)) if n <= c else x @ vectors
    return factor, np.append(np.cumsum(squares[::-1] ** 2)[::-1], 0)


def _gram_rmse(f: np.ndarray, x: np.ndarray) -> float:
    """RMSE of the entries of f f^T - x x^T, by way of the small matrices alone."""
    total = sum(sign * ((a.T @ b) ** 2).sum() for sign, a, b in ((1, f, f), (1, x, x), (-2, f, x)))
    return float(np.sqrt(max(total, 0))) / len(x)


Codec = TopK | Rows | LowRank
_CODECS: dict[str, type[Codec]] = {"topk": TopK, "rows": Rows, "lowrank": LowRank, "features": Features}


def codec_from_spec(spec: Mapping[str, Any]) -> Codec:
    """The codec whose `.spec` this is."""
    # JSON has no tuples.
    options: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in spec.items()}
    return _CODECS[options.pop("name")](**options)


def combine_errors(errors: list[Errors]) -> Errors:
    """One dict for many samples: the largest of every `max_...`, the mean of every other."""
    names = errors[0] if errors else {}
    return {
        name: (_max if name.startswith("max_") else _mean)(np.array([e[name] for e in errors]))
        for name in names
    }


def _max(values: np.ndarray) -> float:
    return float(values.max(initial=0))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
