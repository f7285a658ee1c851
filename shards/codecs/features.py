"""Token maps themselves, as a low-rank factor and a basis."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from densecli.shards.codecs.base import CODECS, Errors, largest, mean
from densecli.shards.codecs.lowrank import LowRank
from densecli.shards.codecs.rows import blank_rows
from densecli.shards.quantise import ALL, Arrays, Some, dequantise
from densecli.shards.specs import CodecSpec

_BASIS = {"x": "basis", "scale": "basis_scale"}


@CODECS.register("features", help="Token maps: a low-rank factor and the basis that gives the tokens back.")
@dataclass(frozen=True, kw_only=True)
class Features(LowRank):
    """Token maps x ~ F V: the factor F of `LowRank`, and the basis V that turns it back into tokens.

    V is the least-squares fit to F as stored, so it makes up for part of F's rounding. It is stored with the
    same `dtype`. RoIAlign is linear: RoIAlign(F) V is RoIAlign of the tokens.
    """

    @property
    def spec(self) -> CodecSpec:
        """See `Codec.spec`."""
        return {**super().spec, "name": "features"}

    def blank(self, shape: tuple[int, int]) -> Arrays:
        """See `LowRank.blank`."""
        rank = min(self.rank or shape[1], *shape)
        basis = blank_rows((rank, shape[1]), self.dtype, np.float16)
        return {**super().blank(shape), **{_BASIS[name]: array for name, array in basis.items()}}

    def encode(self, x: np.ndarray) -> tuple[Arrays, Errors]:
        """Encodes (N, C) tokens of unit norm.

        Returns:
            The arrays of `LowRank` and `basis` (r, C), with int8 also `basis_scale` float16 (r,); and their
            `error` with `rmse_truncation`, see `LowRank.encode`.
        """
        arrays, truncation = self._truncate(x)
        factor, exact = dequantise(arrays).astype(np.float64), x.astype(np.float64)
        basis = self._store(np.linalg.lstsq(factor, exact, rcond=None)[0])
        arrays |= {_BASIS[name]: array for name, array in basis.items()}
        return arrays, {**self.error(arrays, x), "rmse_truncation": truncation}

    def error(self, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> Errors:
        """The errors of F, see `LowRank.error`, and those of the tokens.

        `norm` is the root mean square over tokens of ||x - F V||, which bounds the error of a token's cosine
        with any text; `max_norm` is the largest.
        """
        norms = np.linalg.norm(self.decode(arrays) - x.astype(np.float64), axis=1)
        own = {"norm": float(np.sqrt(mean(norms**2))), "max_norm": largest(norms)}
        return {**super().error(arrays, x), **own}

    def factors(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """F (N, r) and V (r, C), float32."""
        basis = {name: arrays[stored] for name, stored in _BASIS.items() if stored in arrays}
        return dequantise(arrays), dequantise(basis)

    def decode(self, arrays: Mapping[str, np.ndarray], rows: Some = ALL) -> np.ndarray:
        """(R, C) float32 of some tokens, nearly of unit norm."""
        factor, basis = self.factors(arrays)
        decoded: np.ndarray = factor[rows] @ basis
        return decoded
