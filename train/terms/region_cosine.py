"""The term `region_cosine`: a region's embedding learns to match that of its crop (CLIPSelf)."""

from typing import Self

from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.shards.store import Column
from densecli.train.dataloader import Batch
from densecli.train.losses import region_cosine
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


@TERMS.register(
    "region_cosine", help="Cosine distance to the [CLS] embedding of each region's crop (CLIPSelf)."
)
class RegionCosine(Term):
    """1 - mean cosine between a region and the [CLS] embedding of its crop (CLIPSelf, eq. 1)."""

    reads = ("crops",)

    def __init__(self, column: Column, kind: str = "crops") -> None:
        """Keeps the column, for error messages, and the key of its targets in a batch."""
        self.column, self.kind = column, kind

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        return cls(setup.column, setup.kind)

    def counts(self, batch: Batch) -> Tensor:
        """(1,) regions."""
        return rows(batch.boxes)

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`."""
        teacher = batch.targets[self.kind]
        if teacher.shape != student.regions.shape:
            raise DenseCLIError(
                f"The crops of {self.column.name} have {teacher.shape[-1]}-dimensional embeddings, "
                f"but the student's have {student.regions.shape[-1]} dimensions.",
                hint="Choose the column of the student's own architecture with --teacher.",
            )
        return region_cosine(student.regions, teacher, counts[0]), {}
