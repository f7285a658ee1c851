"""Token maps for their Gram matrix, as a low-rank factor."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.shards.codecs.base import CODECS, FLOATS, Errors, largest, mean
from densecli.shards.codecs.rows import Rows, blank_rows
from densecli.shards.codecs.subspace import is_small, leading_vectors, random_block, truncation_rmse
from densecli.shards.quantise import ALL, Arrays, Some, dequantise, quantise
from densecli.shards.specs import CodecSpec


@CODECS.register("lowrank", help="Token maps, for their correlations: a low-rank factor of the Gram matrix.")
@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Token maps x = U s V^T as F, the first columns of U s: F F^T approximates the Gram matrix x x^T.

    RoIAlign is linear and V orthonormal, so RoIAlign(F) RoIAlign(F)^T approximates a region's Gram matrix as
    well: one factor serves every box. Its rows do not have unit norm. int8 has one fp16 scale per token.

    Attributes:
        rank: Number of columns, the same for every map; give either this or `rmse`.
        rmse: Largest RMSE of a map's Gram matrix: each map gets the fewest columns, a multiple of 8, that
            stay within it.
        dtype: int8, fp16 or fp32.
        method: eigh, a full decomposition in float64; or subspace, a randomised iteration in float32 for a
            fixed rank, see `codecs.subspace`.
        seed: Seed of the iteration.
    """

    rank: int | None = 64
    rmse: float | None = None
    dtype: str = Rows.dtype
    method: str = "eigh"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.rank is None) == (self.rmse is None):
            raise ValueError("LowRank takes either a rank or an rmse")
        if self.method not in ("eigh", "subspace"):
            raise ValueError(f"LowRank has no method {self.method!r}")
        if self.method == "subspace" and self.rank is None:
            raise ValueError("the method subspace takes a rank, not an rmse")

    @property
    def spec(self) -> CodecSpec:
        """See `Codec.spec`."""
        spec: CodecSpec = {"name": "lowrank", "rank": self.rank, "rmse": self.rmse, "dtype": self.dtype}
        # Columns of releases that had no other method say nothing of it.
        return spec if self.method == "eigh" else {**spec, "method": self.method, "seed": self.seed}

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """See `Codec.blank`. With `rmse`, the largest shapes possible."""
        return blank_rows((shape[0], min(self.rank or shape[1], *shape)), self.dtype, np.float16)

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """Encodes (N, C) tokens, of unit norm if the Gram matrix should hold cosines.

        Returns:
            `x` (N, r) with r = min(rank, N, C), with int8 also `scale` float16 (N,); and their `error` with
            `rmse_truncation`, the part of the RMSE due to the rank alone.

        Raises:
            DenseCLIError: `dtype` is too coarse for `rmse`.
        """
        arrays, truncation = self._truncate(x)
        return arrays, {**self.error(arrays, x), "rmse_truncation": truncation}

    def error(self, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> Errors:
        """How far the Gram matrix of stored arrays is from that of (N, C) tokens.

        `rmse` is over its entries. `row_norm` is the mean norm of its rows, which bounds the change of
        DeCLIP's context loss (mean over rows of ||R_vfm - R_student||). `max_rmse` and `max_row_norm` are
        those of the worst map. `max_abs` is the largest error of an entry, which also bounds the entries of
        any region: RoIAlign takes means with weights that sum to 1 at most.
        """
        exact, kept = x.astype(np.float64), dequantise(arrays).astype(np.float64)
        gram_error = kept @ kept.T - exact @ exact.T
        rmse = float(np.sqrt(np.mean(gram_error**2)))
        row_norm = mean(np.linalg.norm(gram_error, axis=1))
        return {
            "rmse": rmse,
            "max_rmse": rmse,
            "row_norm": row_norm,
            "max_row_norm": row_norm,
            "max_abs": largest(np.abs(gram_error)),
        }

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """(R, r) float32, F of some tokens."""
        return dequantise(arrays, rows)

    def _truncate(self, x: np.ndarray) -> tuple[Arrays, float]:
        """F as stored, and the RMSE due to its rank alone."""
        if self.method == "subspace" and self.rank and not is_small((len(x), x.shape[1]), self.rank):
            tokens = np.asarray(x, np.float32)
            gram = tokens.T @ tokens
            block = random_block(x.shape[1], self.rank, self.seed)
            vectors = leading_vectors(gram, block, self.rank, np.linalg)
            return self._store(tokens @ vectors), float(truncation_rmse(gram, vectors, len(x)))
        exact = x.astype(np.float64)
        factor, tails = _factor(exact)
        arrays = self._store(factor[:, : self.rank]) if self.rank else self._within(exact, factor, tails)
        return arrays, float(np.sqrt(tails[arrays["x"].shape[1]])) / len(x)

    def _store(self, factor: np.ndarray) -> Arrays:
        if self.dtype == "int8":
            return quantise(factor, np.float16)
        return {"x": factor.astype(FLOATS[self.dtype])}

    def _within(self, exact: np.ndarray, factor: np.ndarray, tails: np.ndarray) -> Arrays:
        """The fewest columns, a multiple of 8 or all, that stay within `rmse` after quantisation."""
        assert self.rmse is not None
        full = factor.shape[1]
        for rank in (*range(8, full, 8), full):
            # Truncation alone exceeds the limit: no need to quantise.
            if np.sqrt(tails[rank]) / len(exact) > self.rmse:
                continue
            arrays = self._store(factor[:, :rank])
            if _gram_rmse(dequantise(arrays).astype(np.float64), exact) <= self.rmse:
                return arrays
        raise DenseCLIError(
            f"Factors stored as {self.dtype} cannot reach an RMSE of {self.rmse:g}.",
            hint="Allow a larger RMSE, or store them as fp16 or fp32.",
        )


def _factor(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """U s (N, m) float64 of x = U s V^T with m = min(N, C), and for r = 0..m the sum of s^4 beyond r."""
    n, c = x.shape
    # The smaller of the two Gram matrices has every non-zero s^2. eigh sorts them in rising order.
    squares, vectors = np.linalg.eigh(x @ x.T if n <= c else x.T @ x)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    factor = vectors * np.sqrt(np.maximum(squares, 0)) if n <= c else x @ vectors
    return factor, np.append(np.cumsum(squares[::-1] ** 2)[::-1], 0)


def _gram_rmse(f: np.ndarray, x: np.ndarray) -> float:
    """RMSE of the entries of f f^T - x x^T, computed from the small matrices alone."""
    total = sum(sign * ((a.T @ b) ** 2).sum() for sign, a, b in ((1, f, f), (1, x, x), (-2, f, x)))
    return float(np.sqrt(max(total, 0))) / len(x)
