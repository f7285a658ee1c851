"""Loss terms: what a term keeps for the whole run, and its value for a batch."""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.shards.kinds import TAU
from densecli.shards.store import Column
from densecli.train.correlation import context_loss, spatial_loss, unit_tokens
from densecli.train.dataloader import Batch
from densecli.train.losses import (
    Reduction,
    decoupled_kl,
    group_counts,
    kept_regions,
    mean,
    region_cosine,
    region_text,
    retemper,
)


class StudentOutput(NamedTuple):
    """dense: (B, C, h, w) as the encoder's mode leaves it; regions: (R, C) float32, pooled, unit norm;
    context: the mode's context features by name, (B, C', h, w) each, none where the mode has none."""

    dense: Tensor
    regions: Tensor
    context: dict[str, Tensor]


class Term(Protocol):
    def counts(self, batch: Batch) -> Tensor:
        """(G,) int64: of how many regions, boxes or images of the batch each of its means is."""
        ...

    def __call__(
        self, student: StudentOutput, batch: Batch, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the batch adds to the unweighted loss, a scalar, and to what else is logged, scalars by name.

        counts: (G,) of all the batches that are to be as one.
        """
        ...


class RegionKL:
    """Term `region_kl`: the student's distribution over categories follows the one the P-VLM retrieved."""

    def __init__(
        self,
        column: Column,
        text: Tensor,
        *,
        tau: float = TAU,
        theta: float = 0.3,
        row: int = 4,
        beta: float | None = None,
        reduction: Reduction = "regions",
    ) -> None:
        """column: of kind `labels`; text: (D, C) the student's own unit embeddings of its categories.

        The rest is `decoupled_kl`'s; another tau than the column's is applied to both sides.
        """
        self.stored_tau: float = column.spec["target"]["tau"]
        self.thing = torch.tensor(column.spec["codec"]["things"], device=text.device)
        self.text, self.tau, self.theta = text, tau, theta
        self.row, self.beta, self.reduction = row, beta, reduction

    def _teacher(self, batch: Batch) -> Tensor:
        return retemper(batch.targets["labels"], self.stored_tau, self.tau, self.thing)

    def counts(self, batch: Batch) -> Tensor:
        """Kept regions of things and of stuff, and all regions."""
        teacher = self._teacher(batch)
        return torch.cat([group_counts(teacher, self.thing, self.theta), rows(teacher)])

    def __call__(
        self, student: StudentOutput, batch: Batch, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Term`."""
        teacher = self._teacher(batch)
        loss = decoupled_kl(
            student.regions @ self.text.T,
            teacher,
            self.thing,
            tau=self.tau,
            theta=self.theta,
            row=self.row,
            beta=self.beta,
            reduction=self.reduction,
            counts=counts[:2],
        )
        return loss, {"kept": mean(kept_regions(teacher, self.theta), counts[2])}


class RegionText:
    """Term `region_text`: each region's pseudo label is the category that the P-VLM retrieved for it."""

    def __init__(self, text: Tensor, *, tau: float = TAU, theta: float = 0.3) -> None:
        """text: (D, C) the student's own unit embeddings of the column's categories. theta: regions of which
        the P-VLM is less sure have no label."""
        self.text, self.tau, self.theta = text, tau, theta

    def counts(self, batch: Batch) -> Tensor:
        """Labelled regions, and all regions."""
        kept = kept_regions(batch.targets["labels"], self.theta)
        return torch.cat([kept.sum()[None], rows(kept)])

    def __call__(
        self, student: StudentOutput, batch: Batch, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Term`."""
        teacher = batch.targets["labels"]
        kept = kept_regions(teacher, self.theta)
        cosines = student.regions[kept] @ self.text.T
        loss = region_text(cosines, teacher[kept].argmax(dim=-1), self.tau, counts[0])
        return loss, {"labelled": mean(kept, counts[1])}


class RegionCosine:
    """Term `region_cosine`: a region looks like the [CLS] of its own crop."""

    def __init__(self, column: Column) -> None:
        """column: of kind `crops`."""
        self.column = column

    def counts(self, batch: Batch) -> Tensor:
        """Regions."""
        return rows(batch.boxes)

    def __call__(
        self, student: StudentOutput, batch: Batch, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Term`."""
        teacher = batch.targets["crops"]
        if teacher.shape != student.regions.shape:
            raise DenseCLIError(
                f"The crops of {self.column.name} are embeddings of {teacher.shape[-1]} numbers, "
                f"the student's have {student.regions.shape[-1]}.",
                hint="Choose the column of the student's own architecture with --teacher.",
            )
        return region_cosine(student.regions, teacher, counts[0]), {}


class Context:
    """Term `context`: the tokens' cosines are those of another encoder's tokens."""

    def __init__(self, kind: str) -> None:
        """kind: of the column, a map of factors."""
        self.kind = kind

    def counts(self, batch: Batch) -> Tensor:
        """Images: all have as many tokens."""
        return rows(batch.images)

    def __call__(
        self, student: StudentOutput, batch: Batch, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Term`."""
        tokens = context_tokens(student)
        grid = student.dense.shape[-2:]
        factors = batch.targets[self.kind].permute(0, 3, 1, 2)
        if factors.shape[-2:] == grid:
            # Not made unit again: that would triple the error of a quantised factor.
            return context_loss(tokens, factors.flatten(2).transpose(1, 2), counts[0]), {}
        factors = F.interpolate(factors, size=grid, mode="bilinear", align_corners=False, antialias=True)
        return context_loss(tokens, unit_tokens(factors), counts[0]), {}


class Spatial:
    """Term `spatial`: inside each box the tokens' correlations are those of another encoder's tokens."""

    def __init__(self, kind: str, *, tau: float = 0.2, side: int = 7) -> None:
        """kind: of the column, a map of factors or factors of each box. The rest is `spatial_loss`'s."""
        self.kind, self.tau, self.side = kind, tau, side

    def counts(self, batch: Batch) -> Tensor:
        """Boxes."""
        return rows(batch.boxes)

    def __call__(
        self, student: StudentOutput, batch: Batch, counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Term`."""
        teacher = batch.targets[self.kind]
        loss = spatial_loss(
            F.normalize(student.dense, dim=1),
            teacher.permute(0, 3, 1, 2) if teacher.ndim == 4 else teacher,
            batch.boxes,
            batch.batch_index,
            side=self.side,
            tau=self.tau,
            count=counts[0],
        )
        return loss, {}


def context_tokens(student: StudentOutput) -> Tensor:
    """(B, N, C) whose products are the student's token cosines, as DeCLIP's context loss compares them.

    Of its context features; the mean of both cosines where the mode reads q and k (`csa`, `all`); of the
    dense map where the mode has no context features (`value`, `vv`, any convolutional student).
    """
    features = list(student.context.values()) or [student.dense]
    return torch.cat([unit_tokens(f) for f in features], dim=-1) / len(features) ** 0.5


def rows(tensor: Tensor) -> Tensor:
    """(1,) int64 on the tensor's device: how many rows it has."""
    return torch.tensor([len(tensor)], device=tensor.device)


def weighted_sum(
    terms: dict[str, Term],
    weights: dict[str, float],
    student: StudentOutput,
    batch: Batch,
    counts: dict[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the batch adds to the loss, and to its parts by name (each term before its weight).

    counts: of all the batches that are to be as one, by term.
    """
    total = student.regions.new_zeros(())
    parts: dict[str, Tensor] = {}
    for name, term in terms.items():
        value, extra = term(student, batch, counts[name])
        total = total + weights[name] * value
        parts |= {name: value.detach(), **extra}
    return total, parts
