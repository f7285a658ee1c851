"""The term `context`: token cosines learn to match those of another encoder (DeCLIP)."""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.train.batch import Batch
from densecli.train.correlation import context_loss, unit_tokens
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


@TERMS.register("context", help="Distance of the cosines of all token pairs from another encoder's (DeCLIP).")
class Context(Term):
    """`context_loss` between the student's tokens and a stored token map."""

    reads = ("gram", "self")

    def __init__(self, kind: str) -> None:
        """Keeps the kind of target, a token map."""
        self.kind = kind

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        return cls(setup.kind)

    def counts(self, batch: Batch) -> Tensor:
        """(1,) images; all have the same number of tokens."""
        return rows(batch.images)

    def outputs_read(self, student: StudentOutput) -> list[Tensor]:
        """See `Term.outputs_read`."""
        return context_maps(student)

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`."""
        tokens = context_tokens(student)
        grid = student.dense.shape[-2:]
        factors = batch.targets[self.kind].permute(0, 3, 1, 2)
        if factors.shape[-2:] == grid:
            # Not normalised again, which would triple the error of a quantised factor.
            return context_loss(tokens, factors.flatten(2).transpose(1, 2), counts[0]), {}
        factors = F.interpolate(factors, size=grid, mode="bilinear", align_corners=False, antialias=True)
        return context_loss(tokens, unit_tokens(factors), counts[0]), {}


def context_maps(student: StudentOutput) -> list[Tensor]:
    """The context features of the mode; the dense map if it has none."""
    return list(student.context.values()) or [student.dense]


def context_tokens(student: StudentOutput) -> Tensor:
    """The student's tokens for DeCLIP's context loss.

    They are the mode's context features. If the mode reads q and k (`csa`, `all`), cosines are the mean of
    both. If it has no context features (`value`, `vv`, convolutional students), they are the dense map.

    Returns:
        (B, N, C) float32, whose inner products are the cosines of tokens.
    """
    features = context_maps(student)
    return torch.cat([unit_tokens(f) for f in features], dim=-1) / math.sqrt(len(features))
