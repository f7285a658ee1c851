"""A loss term and a method: content features also follow a VFM's correlations from region to region.

Our reading of DeCLIP's journal version, whose abstract constrains content features by a VFM's correlations of
regions and gives no formula. We compare two matrices of a photo: the cosines of its regions, pooled from the
student's dense map, and the same from the VFM's tokens. The distance is that of DeCLIP's context loss.
"""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from densecli.core.registry import registry
from densecli.train.batch import Batch
from densecli.train.methods import METHODS, Method
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


@TERMS.register(
    "region_correlation", help="Distance of the cosines of all pairs of regions of a photo from a VFM's."
)
class RegionCorrelation(Term):
    """`region_correlation_loss` between the student's regions and those of a stored token map."""

    reads = ("gram",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        return cls(setup.kind)

    def counts(self, batch: Batch) -> Tensor:
        """(1,) regions."""
        return rows(batch.boxes)

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        # RoIAlign is linear, so a factor of the tokens gives the cosines of pooled tokens too.
        tokens = batch.targets[self.kind].permute(0, 3, 1, 2)
        teacher = batch.pool(tokens)
        return region_correlation_loss(student.regions, teacher, batch.batch_index, counts[0]), {}


def region_correlation_loss(student: Tensor, teacher: Tensor, photo: Tensor, count: Tensor) -> Tensor:
    """The mean over regions i of || (S S^T - T T^T)_i ||_2 over the regions of the same photo.

    Args:
        student: (R, C) S, of unit norm.
        teacher: (R, r) T, of unit norm.
        photo: (R,) which photo each region belongs to.
        count: Number of regions of the whole step.

    Returns:
        A scalar; 0 without regions.
    """
    difference = student @ student.T - teacher @ teacher.T
    same = photo[:, None] == photo[None, :]
    distances = torch.linalg.vector_norm(difference * same, dim=1)
    return distances.sum() / count.clamp(min=1)


METHODS.add(
    "declip-regions",
    Method(
        losses={"region_cosine": 1.0, "context": 0.25, "region_correlation": 0.1},
        settings={"mode": "qq+scale"},
    ),
    help="DeCLIP with a VFM's correlations from region to region.",
)
registry("ablations").add("examples", Path(__file__).parent, help="Ablations of the examples.")
