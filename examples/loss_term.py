"""A loss term: a region's embedding follows that of its crop, by a Huber loss with an option of its own."""

from dataclasses import dataclass
from typing import Self

import torch.nn.functional as F
from torch import Tensor

from densecli.train.batch import Batch
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


@TERMS.register("region_huber", help="Huber loss to the [CLS] embedding of each region's crop.")
class RegionHuber(Term):
    """Mean over regions of the Huber loss, summed over the embedding."""

    reads = ("crops",)

    @dataclass(frozen=True)
    class Options:
        """delta: Distance at which the loss becomes linear; --loss-option region_huber.delta=0.1 sets it."""

        delta: float = 1.0

    def __init__(self, kind: str, delta: float) -> None:
        self.kind, self.delta = kind, delta

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        return cls(setup.kind, setup.options.delta)

    def counts(self, batch: Batch) -> Tensor:
        """(1,) regions."""
        return rows(batch.boxes)

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """Divides by the regions of the whole step, so that batches and processes add up."""
        teacher = batch.targets[self.kind]
        loss = F.huber_loss(student.regions, teacher, delta=self.delta, reduction="sum")
        return loss / counts[0].clamp(min=1), {}
