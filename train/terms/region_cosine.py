"""The term `region_cosine`: a region's embedding learns to match that of its crop (CLIPSelf)."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import seeded
from densecli.shards.npz import decode_npz
from densecli.shards.store import Column
from densecli.shards.tars import read_shard
from densecli.train.batch import Batch
from densecli.train.heads import MapProjection
from densecli.train.losses import region_cosine
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


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
            head = seeded(lambda: MapProjection(setup.width, _width(setup.column)), setup.config.seed)
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
        if teacher.shape != regions.shape:
            raise DenseCLIError(
                f"The crops of {self.column.name} have {teacher.shape[-1]}-dimensional embeddings, "
                f"but the student's have {regions.shape[-1]} dimensions.",
                hint="Choose the column of the student's own architecture with --teacher, or learn a "
                "projection with --loss-option region_cosine.projection=true.",
            )
        return region_cosine(regions, teacher, counts[0]), {}


def _width(column: Column) -> int:
    """C, the numbers of an embedding in a column. Raises DenseCLIError if it has none."""
    for shard in column.shard_names:
        for _, members in read_shard(column, shard):
            return int(column.codec.decode(decode_npz(members["npz"])).shape[1])
    raise DenseCLIError(
        f"The column {column.url} has no photo.", hint="Run its build: it continues where it stopped."
    )
