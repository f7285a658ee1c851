"""Low-rank factors of token maps, made on the device of their teacher; see `shards.codecs.LowRank`."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from densecli.shards.codecs import Errors, Features, LowRank
from densecli.shards.codecs.subspace import is_small, leading_vectors, random_block, truncation_rmse

CPU_ENTRIES = 2**17
"""Entries of Gram matrices whose errors a CPU measures at once: what stays in its cache."""
GPU_ENTRIES = 2**26
"""Entries that a GPU measures at once: 256 MB."""
BLOCKS = 8
"""Blocks of rows of a Gram matrix, which is symmetric: each leaves out the columns of those before it."""
RCOND = 1e-12
"""Squared singular values of a factor below this part of the largest count as zero in its pseudo-inverse."""


def array_names(codec: LowRank) -> tuple[str, ...]:
    """Names of the arrays that the codec stores."""
    return tuple(codec.blank((1, 1)))


@torch.inference_mode()
def encode_maps(codec: LowRank, x: Tensor) -> list[tuple[Tensor, ...]]:
    """Encodes maps of one shape as `codec.encode` encodes each of them, up to rounding.

    Args:
        codec: A codec of a fixed rank.
        x: (B, N, C) float32 tokens of B maps.

    Returns:
        For each map its figures, see `errors_of`, and the codec's arrays in the order of `array_names`.
    """
    # The caller refuses what is not finite, but eigh must not raise before.
    x = x.nan_to_num(0, 0, 0)
    factor, truncation = _factor(codec, x)
    stored = _stored(codec, factor)
    kept = _restored(stored)
    figures = [truncation, *_gram_errors(kept, x)]
    arrays = list(stored)
    if isinstance(codec, Features):
        basis = _stored(codec, _least_squares(kept, x))
        norms = (x - kept @ _restored(basis)).norm(dim=2)
        figures += [norms.square().mean(dim=1).sqrt(), norms.amax(dim=1)]
        arrays += basis
    return list(zip(torch.stack([figure.float() for figure in figures], dim=1), *arrays, strict=True))


def errors_of(codec: LowRank, figures: np.ndarray) -> Errors:
    """The errors that `codec.encode` returns, of a map's figures."""
    truncation, rmse, row_norm, max_abs, *norms = (float(figure) for figure in figures)
    errors = {
        "rmse": rmse,
        "max_rmse": rmse,
        "row_norm": row_norm,
        "max_row_norm": row_norm,
        "max_abs": max_abs,
        "rmse_truncation": truncation,
    }
    if isinstance(codec, Features):
        errors |= dict(zip(("norm", "max_norm"), norms, strict=True))
    return errors


def _factor(codec: LowRank, x: Tensor) -> tuple[Tensor, Tensor]:
    """F (B, N, r) float32, and the RMSE (B,) due to its rank."""
    assert codec.rank
    tokens, channels = x.shape[1:]
    if is_small((tokens, channels), codec.rank):
        return _exact_factor(x.double(), codec.rank)
    gram = x.mT @ x
    block = _block_on(x.device, channels, codec.rank, codec.seed)
    vectors = leading_vectors(gram, block, codec.rank, torch.linalg)
    return x @ vectors, truncation_rmse(gram, vectors, tokens)


def _exact_factor(x: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same of few tokens or channels, x (B, N, C) float64, by a full decomposition."""
    tokens, channels = x.shape[1:]
    negated, vectors = torch.linalg.eigh(-(x @ x.mT if tokens <= channels else x.mT @ x))
    squares = (-negated).clamp(min=0)
    factor = vectors * squares.sqrt()[:, None] if tokens <= channels else x @ vectors
    return factor[..., :rank].float(), squares[:, rank:].square().sum(dim=1).sqrt() / tokens


@cache
def _block_on(device: torch.device, channels: int, rank: int, seed: int) -> Tensor:
    block: Tensor = torch.from_numpy(random_block(channels, rank, seed)).to(device)
    return block


def _stored(codec: LowRank, x: Tensor) -> tuple[Tensor, ...]:
    """(B, N, r) as the codec stores it; for int8 the numbers and the scales, see `shards.quantise`."""
    if codec.dtype != "int8":
        return (x.to(torch.float16 if codec.dtype == "fp16" else torch.float32),)
    scale = (x.abs().amax(dim=2) / 127).half()
    wide = scale.double()[..., None]
    steps = x / torch.where(wide > 0, wide, torch.inf)
    return steps.round_().clamp_(-127, 127).to(torch.int8), scale


def _restored(stored: tuple[Tensor, ...]) -> Tensor:
    """What is decoded of `_stored`, float32."""
    x, *scale = stored
    return x.float() * scale[0].float()[..., None] if scale else x.float()


def _gram_errors(kept: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`rmse`, `row_norm` and `max_abs` (B,) of kept kept^T, see `LowRank.error`."""
    maps, tokens = x.shape[:2]
    rows = -(-tokens // BLOCKS)
    squares, largest = x.new_zeros(maps, tokens), x.new_zeros(maps)
    at_once = max(1, (CPU_ENTRIES if x.device.type == "cpu" else GPU_ENTRIES) // (rows * tokens))
    for first in range(0, maps, at_once):
        some = slice(first, first + at_once)
        left, right = torch.cat([kept[some], x[some]], dim=2), torch.cat([kept[some], -x[some]], dim=2)
        for row in range(0, tokens, rows):
            error = left[:, row : row + rows] @ right[:, row:].mT
            found = torch.maximum(error.amax(dim=(1, 2)), -error.amin(dim=(1, 2)))
            largest[some] = torch.maximum(largest[some], found)
            square = error.square_()
            squares[some, row : row + rows] += square.sum(dim=2)
            squares[some, row + rows :] += square[:, :, rows:].sum(dim=1)
    return squares.sum(dim=1).sqrt() / tokens, squares.sqrt().mean(dim=1), largest


def _least_squares(factor: Tensor, x: Tensor) -> Tensor:
    """V (B, r, C) float32 with the least ||x - F V||, of F (B, N, r)."""
    wide = factor.double()
    squares, vectors = torch.linalg.eigh(wide.mT @ wide)
    inverse = torch.where(squares > RCOND * squares[:, -1:], 1 / squares, 0)
    found: Tensor = vectors @ (inverse[..., None] * (vectors.mT @ (wide.mT @ x.double())))
    return found.float()
