"""The term `region_text`: the P-VLM's best category of a region is its pseudo label (RegionText)."""

from typing import Self

import torch
from torch import Tensor

from densecli.train.dataloader import Batch
from densecli.train.losses import kept_regions, mean, region_text
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


@TERMS.register(
    "region_text", help="Cross entropy with the P-VLM's best category of each region (RegionText)."
)
class RegionText(Term):
    """Cross entropy between the student's distribution over categories and pseudo labels."""

    reads = ("labels",)

    def __init__(self, text: Tensor, *, tau: float, theta: float, kind: str) -> None:
        """Keeps the categories.

        Args:
            text: (D, C) the student's own unit embeddings of the column's D categories.
            tau: The student's temperature.
            theta: Regions whose best category is not above this probability have no label.
            kind: Key of the column's targets in a batch.
        """
        self.text, self.tau, self.theta, self.kind = text, tau, theta, kind

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        config = setup.config
        return cls(setup.text(setup.column), tau=config.tau, theta=config.theta, kind=setup.kind)

    def counts(self, batch: Batch) -> Tensor:
        """(2,) labelled regions, all regions."""
        kept = kept_regions(batch.targets[self.kind], self.theta)
        return torch.cat([kept.sum()[None], rows(kept)])

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`; logs the share of regions labelled."""
        teacher = batch.targets[self.kind]
        kept = kept_regions(teacher, self.theta)
        cosines = student.regions[kept] @ self.text.T
        loss = region_text(cosines, teacher[kept].argmax(dim=-1), self.tau, counts[0])
        return loss, {"labelled": mean(kept, counts[1])}
