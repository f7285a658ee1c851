"""Loss terms: what a term keeps for the whole run, and its value for a batch."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from shards.store import Column
from train.data import Batch
from train.losses import Reduction, decoupled_kl, kept_regions, retemper


class StudentOutput(NamedTuple):
    """dense: (B, C, h, w) as the encoder's mode leaves it; regions: (R, C) float32, pooled, unit norm."""

    dense: Tensor
    regions: Tensor


class Term(Protocol):
    def __call__(self, student: StudentOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The unweighted loss, a scalar, and what else to log of this batch, scalars by name."""
        ...


class RegionKL:
    """Term `region_kl`: the student's distribution over categories follows the one the P-VLM retrieved."""

    def __init__(
        self,
        column: Column,
        text: Tensor,
        *,
        tau: float = 0.01,
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

    def __call__(self, student: StudentOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        teacher = retemper(batch.targets["labels"], self.stored_tau, self.tau)
        loss = decoupled_kl(
            student.regions @ self.text.T,
            teacher,
            self.thing,
            tau=self.tau,
            theta=self.theta,
            row=self.row,
            beta=self.beta,
            reduction=self.reduction,
        )
        return loss, {"kept": kept_regions(teacher, self.theta).float().mean()}


def weighted_sum(
    terms: dict[str, Term], weights: dict[str, float], student: StudentOutput, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its parts by name for the metrics row (each term before its weight)."""
    total = student.regions.new_zeros(())
    parts: dict[str, Tensor] = {}
    for name, term in terms.items():
        value, extra = term(student, batch)
        total = total + weights[name] * value
        parts |= {name: value.detach(), **extra}
    return total, parts
