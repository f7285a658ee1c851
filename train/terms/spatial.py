"""The term `spatial`: token correlations inside each box learn to match another encoder's (R-SC)."""

from typing import Self

import torch.nn.functional as F
from torch import Tensor

from densecli.train.correlation import spatial_loss
from densecli.train.dataloader import Batch
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


@TERMS.register(
    "spatial", help="Cross entropy of token correlations inside each box with another encoder's (R-SC)."
)
class Spatial(Term):
    """`spatial_loss` of the student's tokens with a stored token map, or with stored tokens of each box."""

    reads = ("self", "refined", "gram")

    def __init__(self, kind: str, *, tau: float, side: int, tau_teacher: float | None = None) -> None:
        """Keeps the settings.

        Args:
            kind: Kind of target, a token map or the tokens of each box.
            tau: See `spatial_loss`.
            side: See `spatial_loss`.
            tau_teacher: See `spatial_loss`.
        """
        self.kind, self.tau, self.side, self.tau_teacher = kind, tau, side, tau_teacher

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        config = setup.config
        return cls(
            setup.kind,
            tau=config.spatial_tau,
            side=config.spatial_side,
            tau_teacher=config.spatial_tau_teacher,
        )

    def counts(self, batch: Batch) -> Tensor:
        """(1,) boxes."""
        return rows(batch.boxes)

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`."""
        teacher = batch.targets[self.kind]
        loss = spatial_loss(
            F.normalize(student.dense, dim=1),
            teacher.permute(0, 3, 1, 2) if teacher.ndim == 4 else teacher,
            batch.boxes,
            batch.batch_index,
            side=self.side,
            tau=self.tau,
            tau_teacher=self.tau_teacher,
            count=counts[0],
        )
        return loss, {}
