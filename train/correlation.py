"""Losses on token correlations.

Correlation matrices are never kept: they are computed in blocks, and again in the backward pass.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from densecli.core.device import block_bytes
from densecli.models.pooling import region_tokens
from densecli.train.config import TrainConfig
from densecli.train.losses import mean

COMPARISONS = ("cross-entropy", "frobenius")
"""How the correlations of a box are compared."""
ALIVE = 3
"""Arrays of a GPU's block in memory at a time: both correlations and their difference."""


def block_entries(device: torch.device) -> int:
    """Entries of a correlation matrix, or of the tokens it is made of, that a block has on a device."""
    entries = block_bytes(device) // 4
    return entries // ALIVE if device.type == "cuda" else entries


def unit_tokens(features: Tensor) -> Tensor:
    """Normalises the tokens of a map.

    Args:
        features: (B, C, h, w).

    Returns:
        (B, h * w, C) float32, unit norm: x x^T are the token cosines.
    """
    return F.normalize(features.float().flatten(2), dim=1).transpose(1, 2)


def context_loss(
    student: Tensor, teacher: Tensor, count: Tensor | None = None, *, block: int | None = None
) -> Tensor:
    """DeCLIP's context loss: the mean over rows of || R_teacher - R_student ||_2 with R = X X^T.

    Args:
        student: (B, N, C) float32 tokens; of unit norm if R should hold cosines.
        teacher: (B, N, r) float32 tokens, or rank-r factors F of them with R = F F^T.
        count: Number of images of the whole step; see `losses.mean`.
        block: Entries of R in memory at a time; by default as the device has room for.

    Returns:
        A scalar.
    """
    n, block = student.shape[1], block or block_entries(student.device)
    images, rows = max(1, block // n**2), max(1, block // n)
    distances = [
        _recomputed(_row_distances, x, f, slice(start, start + rows))
        for x, f in zip(torch.split(student, images), torch.split(teacher, images), strict=True)
        for start in range(0, n, rows)
    ]
    return mean(torch.cat([part.flatten() for part in distances]), None if count is None else count * n)


def _row_distances(x: Tensor, f: Tensor, rows: slice) -> Tensor:
    """X (B, N, C) and F (B, N, r) -> (B, rows): || (F F^T - X X^T)_i ||_2 for some rows i."""
    distances: Tensor = torch.linalg.vector_norm(f[:, rows] @ f.mT - x[:, rows] @ x.mT, dim=-1)
    return distances


def correlation_cross_entropy(
    student: Tensor,
    teacher: Tensor,
    tau: float = TrainConfig.spatial_tau,
    tau_teacher: float | None = None,
) -> Tensor:
    """Cross entropy of softmax(C_teacher / tau_t) and softmax(C_student / tau), mean over rows (R-SC).

    Args:
        student: (R, L, L) correlations C = Z Z^T of the L tokens Z of each of R boxes.
        teacher: The same for the teacher.
        tau: Temperature of the student.
        tau_teacher: Temperature of the teacher; None for the student's.

    Returns:
        (R,).
    """
    p, log_q = (teacher / (tau_teacher or tau)).softmax(dim=-1), (student / tau).log_softmax(dim=-1)
    return -(p * log_q).sum(dim=-1).mean(dim=-1)


def spatial_loss(
    student: Tensor,
    teacher: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    side: int = TrainConfig.spatial_side,
    tau: float = TrainConfig.spatial_tau,
    tau_teacher: float | None = None,
    compare: str = COMPARISONS[0],
    count: Tensor | None = None,
    block: int | None = None,
) -> Tensor:
    """Spatial correlation distillation: `correlation_cross_entropy` inside each box, mean over boxes (R-SC).

    Args:
        student: (B, C, h, w), unit norm per token.
        teacher: (B, r, h', w') map of unit tokens, or of a rank-r factor of them (RoIAlign is linear, so the
            factor gives a region's correlations too); or (R, L, r) tokens of each box.
        boxes: (R, 4) xyxy, normalised.
        batch_index: (R,), the image of each box.
        side: RoIAlign makes L = side * side tokens of a box. If the teacher has tokens for each box, L is
            given by them.
        tau: Temperature of the student.
        tau_teacher: Temperature of the teacher; None for the student's.
        compare: `cross-entropy`; or `frobenius`, the norm of C_teacher - C_student, which has no temperature
            (R-SC, table 6a).
        count: Number of boxes of the whole step; see `losses.mean`.
        block: Entries of tokens or correlations in memory at a time; by default as the device has room for.

    Returns:
        A scalar, 0 without boxes.
    """
    of_boxes = teacher.ndim == 3
    side = round(teacher.shape[1] ** 0.5) if of_boxes else side
    # Correlations, tokens, and what `pooled_diagonal` makes on the way.
    widest = max(side**2, student.shape[1], 0 if of_boxes else side * teacher.shape[-1])
    step = max(1, (block or block_entries(student.device)) // (side**2 * widest))
    total = student.sum() * 0
    for start in range(0, len(boxes), step):
        rows = slice(start, start + step)
        theirs = teacher[rows] if of_boxes else teacher
        box_losses = partial(_box_losses, side=side, tau=tau, tau_teacher=tau_teacher, compare=compare)
        total = total + _recomputed(box_losses, student, theirs, boxes[rows], batch_index[rows])
    return total / (max(len(boxes), 1) if count is None else count.clamp(min=1))


def _box_losses(
    student: Tensor,
    teacher: Tensor,
    boxes: Tensor,
    batch_index: Tensor,
    *,
    side: int,
    tau: float,
    tau_teacher: float | None,
    compare: str,
) -> Tensor:
    """The sum over some boxes of what `spatial_loss` takes the mean of."""
    ours = region_tokens(student, boxes, batch_index, side)
    if teacher.ndim == 3:
        theirs = teacher @ teacher.mT
    else:
        z = region_tokens(teacher, boxes, batch_index, side)
        missing = (1 - teacher.square().sum(dim=1)).clamp(min=0)
        theirs = z @ z.mT + pooled_diagonal(missing[batch_index], boxes, side)
    if compare == "frobenius":
        norms: Tensor = torch.linalg.matrix_norm(theirs - ours @ ours.mT)
        return norms.sum()
    return correlation_cross_entropy(ours @ ours.mT, theirs, tau, tau_teacher).sum()


def pooled_diagonal(diagonal: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Computes W D W^T for a diagonal D, where W X are the tokens that RoIAlign makes of boxes.

    This corrects correlations that come from a low-rank factor. What the factor drops from two different
    tokens is almost uncorrelated, so only the diagonal D matters: the norm that it drops from each token.
    RoIAlign is separable, so W is a product of weights for rows and for columns.

    Args:
        diagonal: (R, h, w), D for each box.
        boxes: (R, 4) xyxy, normalised.
        side: See `spatial_loss`.

    Returns:
        (R, L, L).
    """
    count, height, width = diagonal.shape
    eye_y = torch.eye(height, device=diagonal.device)[:, :, None].expand(-1, -1, width)
    eye_x = torch.eye(width, device=diagonal.device)[:, None, :].expand(-1, height, -1)
    index = torch.zeros(count, dtype=torch.long, device=diagonal.device)
    weights = region_tokens(torch.cat([eye_y, eye_x])[None], boxes, index, side)
    weights = weights.reshape(count, side, side, height + width)
    y, x = weights[:, :, 0, :height], weights[:, 0, :, height:]
    by_rows = torch.einsum("riy,rky,ryx->rikx", y, y, diagonal)
    return torch.einsum("rikx,rjx,rlx->rijkl", by_rows, x, x).flatten(3).flatten(1, 2)


def _recomputed(function: Any, *args: Any) -> Any:
    # The functions draw no random numbers.
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
