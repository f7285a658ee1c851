"""Losses of token correlations. Their matrices are never kept: blocks of them, made again in the backward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from densecli.models.pooling import region_tokens
from densecli.train.losses import mean

BLOCK = 2**21
"""Entries of a correlation matrix, or of the tokens that make it, that are there at a time."""


def unit_tokens(features: Tensor) -> Tensor:
    """(B, C, h, w) -> float32 (B, h*w, C) of unit norm: x x^T are the token cosines."""
    return F.normalize(features.float().flatten(2), dim=1).transpose(1, 2)


def context_loss(
    student: Tensor, teacher: Tensor, count: Tensor | None = None, *, block: int = BLOCK
) -> Tensor:
    """mean over rows of || R_teacher - R_student ||_2, R = X X^T (DeCLIP's context loss).

    student: (B, N, C) and teacher: (B, N, r), float32. Tokens of unit norm give R of cosines; so do the
    teacher's rank-r factors F of them, R = F F^T. count: of images, see `losses.mean`. block: entries of R at
    a time. Returns a scalar.
    """
    n = student.shape[1]
    images, rows = max(1, block // n**2), max(1, block // n)
    distances = [
        _recomputed(_row_distances, x, f, slice(start, start + rows))
        for x, f in zip(student.split(images), teacher.split(images), strict=True)
        for start in range(0, n, rows)
    ]
    return mean(torch.cat([part.flatten() for part in distances]), None if count is None else count * n)


def _row_distances(x: Tensor, f: Tensor, rows: slice) -> Tensor:
    """(B, N, C), (B, N, r) -> (B, rows): || (F F^T - X X^T)_i ||_2 of some rows i."""
    return torch.linalg.vector_norm(f[:, rows] @ f.mT - x[:, rows] @ x.mT, dim=-1)


def correlation_cross_entropy(student: Tensor, teacher: Tensor, tau: float = 0.2) -> Tensor:
    """Cross entropy of softmax(C_t / tau) and softmax(C_s / tau), mean over rows (R-SC, SCD).

    student, teacher: (R, L, L), C = Z Z^T of the tokens Z of R boxes. Returns (R,).
    """
    p, log_q = (teacher / tau).softmax(dim=-1), (student / tau).log_softmax(dim=-1)
    return -(p * log_q).sum(dim=-1).mean(dim=-1)


def spatial_loss(
    student: Tensor,
    teacher: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    side: int = 7,
    tau: float = 0.2,
    count: Tensor | None = None,
    block: int = BLOCK,
) -> Tensor:
    """Spatial correlation distillation: `correlation_cross_entropy` inside each box, mean over boxes (R-SC).

    student: (B, C, h, w) of unit norm per token. teacher: (B, r, h', w'), the map of its unit tokens or of
    their rank-r factor (RoIAlign is linear, so the factor gives the region's correlations too), or (R, L, r),
    the boxes' own. boxes: (R, 4) normalised, of images batch_index (R,). side: a box becomes L = side * side
    tokens by RoIAlign; where the teacher's are given, L is theirs. Without a box the loss is 0.
    count: of boxes, see `losses.mean`.
    """
    of_boxes = teacher.ndim == 3
    side = round(teacher.shape[1] ** 0.5) if of_boxes else side
    step = max(1, block // (side**2 * max(side**2, student.shape[1])))
    total = student.sum() * 0
    for start in range(0, len(boxes), step):
        rows = slice(start, start + step)
        theirs = teacher[rows] if of_boxes else teacher
        total = total + _recomputed(_box_losses, student, theirs, boxes[rows], batch_index[rows], side, tau)
    return total / (max(len(boxes), 1) if count is None else count.clamp(min=1))


def _box_losses(
    student: Tensor, teacher: Tensor, boxes: Tensor, batch_index: Tensor, side: int, tau: float
) -> Tensor:
    """The sum of `correlation_cross_entropy` over some boxes."""
    ours = region_tokens(student, boxes, batch_index, side)
    if teacher.ndim == 3:
        theirs = teacher @ teacher.mT
    else:
        z = region_tokens(teacher, boxes, batch_index, side)
        missing = (1 - teacher.square().sum(dim=1)).clamp(min=0)
        theirs = z @ z.mT + pooled_diagonal(missing[batch_index], boxes, side)
    return correlation_cross_entropy(ours @ ours.mT, theirs, tau).sum()


def pooled_diagonal(diagonal: Tensor, boxes: Tensor, side: int) -> Tensor:
    """W D W^T of the tokens W X of boxes by RoIAlign, D being a diagonal: (R, h, w) -> (R, L, L).

    What a factor lacks of the norm of its tokens is D: what is cut off of two tokens has hardly anything in
    common, but of a token with itself it is all there, and tokens of a region share tokens of the map.
    RoIAlign is separable: W is a product of weights of rows and of columns.
    """
    count, height, width = diagonal.shape
    eye_y = torch.eye(height, device=diagonal.device)[:, :, None].expand(-1, -1, width)
    eye_x = torch.eye(width, device=diagonal.device)[:, None, :].expand(-1, height, -1)
    index = torch.zeros(count, dtype=torch.long, device=diagonal.device)
    weights = region_tokens(torch.cat([eye_y, eye_x])[None], boxes, index, side).unflatten(1, (side, side))
    y, x = weights[:, :, 0, :height], weights[:, 0, :, height:]
    by_rows = torch.einsum("riy,rky,ryx->rikx", y, y, diagonal)
    return torch.einsum("rikx,rjx,rlx->rijkl", by_rows, x, x).flatten(3).flatten(1, 2)


def _recomputed(function: Any, *args: Any) -> Any:
    # The functions draw no random numbers.
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
