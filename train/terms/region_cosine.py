"""The term `region_cosine`: a region's embedding learns to match that of its crop (CLIPSelf)."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from densecli.models.checkpoints import seeded
from densecli.shards.store import Column
from densecli.train.batch import Batch
from densecli.train.columns import own_teachers
from densecli.train.heads import MapProjection
from densecli.train.losses import region_cosine
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows
from densecli.train.widths import check_width, embedding_width

_HINT = (
    "Choose the column of the student's own architecture with --teacher, or learn a projection with "
    "--loss-option region_cosine.projection=true."
)


@TERMS.register(
    "region_cosine", help="Cosine distance to the [CLS] embedding of each region's crop (CLIPSelf)."
)
class RegionCosine(Term):
    """1 - mean cosine between a region and the [CLS] embedding of its crop (CLIPSelf, eq. 1)."""

    reads = ("crops",)
    agreement = "cosine"

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """The options of `region_cosine`.

        Attributes:
            projection: Learns a linear map from the student's embeddings to those of a teacher of another
                width, and compares there (DenseVLM, table 1, row 2). The map begins with random weights, is
                trained with the student and is not exported.
        """

        projection: bool = False

    def __init__(self, column: Column, kind: str = "crops", head: nn.Module | None = None) -> None:
        """Keeps the column, for error messages, and the key of its targets in a batch; see `Term.head`."""
        self.column, self.kind, self.head = column, kind, head

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        head = None
        if setup.options and setup.options.projection:
            width = embedding_width(setup.column)
            head = seeded(lambda: MapProjection(setup.width, width), setup.config.seed)
        elif setup.column.name not in own_teachers(setup.kind, setup.config.student):
            check_width(
                embedding_width(setup.column), setup.width, f"The crops of {setup.column.name}", _HINT
            )
        return cls(setup.column, setup.kind, head)

    def counts(self, batch: Batch) -> Tensor:
        """(1,) regions."""
        return rows(batch.boxes)

    def agrees(self, student: StudentOutput, batch: Batch) -> Tensor:
        """See `Term.agrees`: the cosine of regions with the embeddings of their crops."""
        counts = self.counts(batch)
        return torch.cat([counts - counts * self(student, batch, counts)[0], counts])

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`."""
        teacher, regions = batch.targets[self.kind], student.regions
        if student.head is not None:
            regions = batch.pool(student.head.float())
        check_width(teacher.shape[-1], regions.shape[-1], f"The crops of {self.column.name}", _HINT)
        return region_cosine(regions, teacher, counts[0]), {}
