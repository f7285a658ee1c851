"""The leading right singular vectors of token maps, by a randomised subspace iteration.

Halko, Martinsson and Tropp, Finding structure with randomness (SIAM Review 2011), algorithms 4.4 and 5.3: a
random block is multiplied by the tokens' C x C Gram matrix and made orthonormal, a few times over; the Gram
matrix within the block, which is small, is then decomposed. The functions take arrays of numpy or of torch,
with `numpy.linalg` or `torch.linalg`, and any number of maps at once in front.
"""

from functools import cache
from typing import Any

import numpy as np

EXTRA, ITERATIONS = 32, 3
"""Columns of the block beyond the rank, and its multiplications.

With real DINOv2-S tokens of photos and rank 64 the RMSE of the Gram matrix is then within 0.1 % of that of a
full decomposition.
"""


def is_small(shape: tuple[int, int], rank: int) -> bool:
    """Whether (N, C) tokens have so few singular vectors that a full decomposition costs no more."""
    return min(shape) <= rank + EXTRA


@cache
def random_block(channels: int, rank: int, seed: int) -> np.ndarray:
    """(C, rank + EXTRA) float32 of random signs, the same on every machine."""
    # numpy promises the bits of its generators over releases, but not the numbers that it makes of them.
    shape = channels, rank + EXTRA
    words = np.random.PCG64(seed).random_raw(-(-channels * shape[1] // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8))[: channels * shape[1]]
    return (2 * bits.astype(np.float32) - 1).reshape(shape)


def leading_vectors(gram: Any, block: Any, rank: int, linalg: Any) -> Any:
    """The leading eigenvectors of Gram matrices, by falling eigenvalue.

    Args:
        gram: (..., C, C) x^T x of tokens x (N, C).
        block: (C, k) of `random_block`.
        rank: r, less than k.
        linalg: numpy.linalg or torch.linalg.

    Returns:
        V (..., C, r), with orthonormal columns.
    """
    for _ in range(ITERATIONS):
        block, _ = linalg.qr(gram @ block)
    # Eigenvalues come in rising order, so those of the negated matrix in falling order.
    _, vectors = linalg.eigh(-(_transposed(block) @ (gram @ block)))
    return block @ vectors[..., :rank]


def truncation_rmse(gram: Any, vectors: Any, tokens: int) -> Any:
    """RMSE of the entries of x V V^T x^T, as an approximation of x x^T.

    Args:
        gram: (..., C, C) x^T x.
        vectors: V (..., C, r), with orthonormal columns.
        tokens: N.

    Returns:
        (...).
    """
    # Both N x N matrices have the norm of their counterparts in C x C, so the error is that of
    # (1 - V V^T) x^T x (1 - V V^T).
    inside = gram @ vectors
    half = inside - vectors @ (_transposed(vectors) @ inside) / 2
    product = vectors @ _transposed(half)
    outside = gram - product
    outside -= _transposed(product)
    outside *= outside
    return outside.sum((-2, -1)) ** 0.5 / tokens


def _transposed(x: Any) -> Any:
    # Arrays of numpy 1 have no .mT.
    return x.swapaxes(-2, -1)
