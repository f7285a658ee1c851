"""Codecs: how targets become small arrays. Each states its size before the run and its error after it.

`blank` has the shapes and types of what `encode` stores. `encode` measures the `error` on what `decode`
returns, so quantisation is in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.shards.quantise import ALL, Arrays, Some, dequantise, quantise

Errors = dict[str, float]

_FLOATS = {"fp16": np.float16, "fp32": np.float32}
_BASIS = {"x": "basis", "scale": "basis_scale"}


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Distributions over D classes: of each row the most likely classes, and the mass of the others.

    A sure row takes a few classes and a doubtful one many; with the same number for all, doubtful rows lose
    what is distilled. So N rows together name k N classes, the likeliest of all, and more where a row would
    leave more than `rest` to the others. things: for each of the D classes, whether it is a thing. The other
    mass is kept for thing and stuff apart, because decoupled losses renormalise over things. k >= D with fp32
    is lossless.
    """

    things: tuple[bool, ...]
    k: int = 20
    rest: float = 5e-4
    dtype: str = "fp16"

    @property
    def spec(self) -> dict:
        options = {"things": list(self.things), "k": self.k, "rest": self.rest, "dtype": self.dtype}
        return {"name": "topk", **options}

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """Arrays of zeros, of the shapes and types that (N, D) distributions are stored in, where no row
        takes more than its share."""
        n, k = shape[0], min(self.k, shape[1])
        return {
            "count": np.zeros(n, np.uint16),
            "ids": np.zeros(n * k, np.uint16),
            "p": np.zeros(n * k, _FLOATS[self.dtype]),
            "rest": np.zeros((n, 2), np.float32),
        }

    def encode(self, p: np.ndarray) -> tuple[Arrays, Errors]:
        """(N, D) probabilities.

        Arrays: `count` uint16 (N,), the classes that each row names, 1 at least; row after row, `ids` uint16
        (M,) by falling probability (equal ones by id) and `p` (M,); `rest` float32 (N, 2) = thing and stuff
        mass of the classes not named. Errors: see `error`.
        """
        things = np.array(self.things)
        order = np.argsort(-p, axis=1, kind="stable")
        falling = np.take_along_axis(p, order, axis=1)
        named = self._named(falling)
        others, is_thing = np.where(named, 0, falling.astype(np.float64)), things[order]
        rest = np.stack([(others * side).sum(1) for side in (is_thing, ~is_thing)], axis=1)
        arrays = {
            "count": named.sum(1).astype(np.uint16),
            "ids": order[named].astype(np.uint16),
            "p": falling[named].astype(_FLOATS[self.dtype]),
            "rest": rest.astype(np.float32),
        }
        return arrays, self.error(arrays, p)

    def _named(self, falling: np.ndarray) -> np.ndarray:
        """Which of (N, D) probabilities, rows falling, are named: the first ones of each row."""
        n, d = falling.shape
        # What a row would leave if it ended before each class.
        named = np.cumsum(falling[:, ::-1], axis=1, dtype=np.float64)[:, ::-1] > self.rest
        named[:, :1] = True
        spare = max(0, n * min(self.k, d) - int(named.sum()))
        likeliest = np.argsort(np.where(named, 1, -falling), axis=None, kind="stable")[:spare]
        named.flat[likeliest] = True
        return named

    def error(self, arrays: Mapping[str, np.ndarray], p: np.ndarray) -> Errors:
        """How far arrays are from (N, D) probabilities: the largest and the mean total variation of what is
        decoded, and of the mass that is not named."""
        things, decoded = np.array(self.things), self.decode(arrays).astype(np.float64)
        others = np.where(decoded[:, :-2] > 0, 0, p.astype(np.float64))
        exact = np.column_stack([p - others, others[:, things].sum(1), others[:, ~things].sum(1)])
        variation = np.abs(decoded - exact).sum(1) / 2
        return {
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

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """Arrays of zeros, of the shapes and types that (N, C) rows are stored in."""
        return _blank_rows(shape, self.dtype, np.float32)

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """(N, C) rows. Arrays: `x` (N, C), and for int8 `scale` float32 (N,). Errors: see `error`."""
        arrays = quantise(x, np.float32) if self.dtype == "int8" else {"x": x.astype(_FLOATS[self.dtype])}
        return arrays, self.error(arrays, x)

    def error(self, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> Errors:
        """How far arrays are from (N, C) rows: the largest absolute error, and the mean of 1 - cosine."""
        exact, decoded = x.astype(np.float64), self.decode(arrays).astype(np.float64)
        norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(decoded, axis=1)
        # A zero row has no direction to lose.
        cosine = np.divide((exact * decoded).sum(1), norms, out=np.ones(len(x)), where=norms > 0)
        return {"max_abs": _max(np.abs(exact - decoded)), "mean_cosine": _mean(1 - cosine)}

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

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """Arrays of zeros, of the shapes and types that (N, C) tokens are stored in; with `rmse`, of the
        largest there can be."""
        return _blank_rows((shape[0], min(self.rank or shape[1], *shape)), self.dtype, np.float16)

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """(N, C) tokens, of unit norm where the Gram matrix is to hold cosines.

        Arrays: `x` (N, r) with r = min(rank, N, C), and for int8 `scale` float16 (N,). Errors: see `error`,
        and `rmse_truncation`, the part of rmse that the rank alone costs, exact from the tail of s^4. Raises
        DenseCLIError where `rmse` is below what `dtype` can keep.
        """
        arrays, truncation = self._cut(x)
        return arrays, {**self.error(arrays, x), "rmse_truncation": truncation}

    def _cut(self, x: np.ndarray) -> tuple[Arrays, float]:
        """F as it is stored, and the RMSE that its rank alone costs."""
        exact = x.astype(np.float64)
        factor, tails = _factor(exact)
        arrays = self._store(factor[:, : self.rank]) if self.rank else self._within(exact, factor, tails)
        return arrays, float(np.sqrt(tails[arrays["x"].shape[1]])) / len(x)

    def error(self, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> Errors:
        """How far arrays are from the Gram matrix of (N, C) tokens.

        `rmse` of its entries; `row_norm`, the mean norm of its rows, which bounds the change of DeCLIP's
        context loss (mean over rows of ||R_vfm - R_student||); `max_rmse` and `max_row_norm`, the same of the
        worst map; `max_abs`, the largest error of an entry, which bounds that of any region's entry: RoIAlign
        takes means with weights that sum to 1 at most.
        """
        exact, kept = x.astype(np.float64), dequantise(arrays).astype(np.float64)
        gram_error = kept @ kept.T - exact @ exact.T
        rmse = float(np.sqrt(np.mean(gram_error**2)))
        row_norm = _mean(np.linalg.norm(gram_error, axis=1))
        return {
            "rmse": rmse,
            "max_rmse": rmse,
            "row_norm": row_norm,
            "max_row_norm": row_norm,
            "max_abs": _max(np.abs(gram_error)),
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

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """See `LowRank.blank`."""
        rank = min(self.rank or shape[1], *shape)
        basis = _blank_rows((rank, shape[1]), self.dtype, np.float16)
        return {**super().blank(shape), **{_BASIS[name]: array for name, array in basis.items()}}

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """(N, C) tokens of unit norm.

        Arrays: those of `LowRank`; `basis` (r, C), and for int8 `basis_scale` float16 (r,). Errors: those of
        `LowRank`, which are F's, and see `error`.
        """
        arrays, truncation = self._cut(x)
        factor, exact = dequantise(arrays).astype(np.float64), x.astype(np.float64)
        basis = self._store(np.linalg.lstsq(factor, exact, rcond=None)[0])
        arrays |= {_BASIS[name]: array for name, array in basis.items()}
        return arrays, {**self.error(arrays, x), "rmse_truncation": truncation}

    def error(self, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> Errors:
        """That of F, see `LowRank.error`; and of ||x - F V||, which bounds the error of a token's cosine with
        any text, `norm`, the root mean square, and `max_norm`."""
        norms = np.linalg.norm(self.decode(arrays) - x.astype(np.float64), axis=1)
        own = {"norm": float(np.sqrt(_mean(norms**2))), "max_norm": _max(norms)}
        return {**super().error(arrays, x), **own}

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


def _blank_rows(shape: tuple[int, int], dtype: str, scale_dtype: type) -> Arrays:
    if dtype == "int8":
        return {"x": np.zeros(shape, np.int8), "scale": np.zeros(shape[0], scale_dtype)}
    return {"x": np.zeros(shape, _FLOATS[dtype])}


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
