"""The term `region_kl`: the student's distribution over categories learns to match the P-VLM's (DenseVLM)."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.shards.store import Column
from densecli.train.config import Reduction
from densecli.train.dataloader import Batch
from densecli.train.groups import find_groups, with_tails
from densecli.train.losses import (
    decoupled_kl,
    group_counts,
    kept_regions,
    mean,
    retemper,
    side_weights,
)
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, agreeing, rows
from densecli.train.thresholds import first_labels, quantile_thresholds


@TERMS.register("region_kl", help="KL from the P-VLM's distribution over categories, decoupled (DenseVLM).")
class RegionKL(Term):
    """`decoupled_kl` of the stored distribution of each region and the student's (DenseVLM, eqs. 3-5)."""

    reads = ("labels",)
    agreement = "agreement"

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """The options of `region_kl`.

        Attributes:
            groups: Groups of categories that are finer than things and stuff: a .toml, .csv or .json file, or
                cluster:K for K clusters of the student's text embeddings. Empty for none.
            group_weight: Weight of the other groups of the same side (things or stuff) for a region, where
                the file gives none.
            keep: Share of each category's regions to learn from, the most confident ones, in place of theta:
                the thresholds follow from the store. 0 for theta.
        """

        groups: str = ""
        group_weight: float = 1.0
        keep: float = 0.0

    def __init__(
        self,
        column: Column,
        text: Tensor,
        *,
        tau: float,
        theta: float,
        variant: str,
        beta: float | None,
        reduction: Reduction,
        kind: str,
        options: Options | None = None,
    ) -> None:
        """Reads the categories of a column.

        Args:
            column: A column of kind labels.
            text: (D, C) the student's own unit embeddings of the column's D categories.
            tau: Temperature of student and teacher. If it differs from the column's, the stored distribution
                is changed too.
            theta: See `decoupled_kl`.
            variant: See `decoupled_kl`.
            beta: See `decoupled_kl`.
            reduction: See `decoupled_kl`.
            kind: Key of the column's targets in a batch.
            options: See `Options`.

        Raises:
            DenseCLIError: The groups cannot be found.
        """
        self.stored_tau: float = column.spec["target"]["tau"]
        self.thing = torch.tensor(column.spec["codec"]["things"], device=text.device)
        self.text, self.tau = text, tau
        self.theta = theta
        self.variant, self.beta, self.reduction = variant, beta, reduction
        self.kind = kind
        self.threshold: float | Tensor = theta
        if options and options.keep:
            self.theta = None
            self.threshold = self._thresholds(column, options.keep)
        self.class_weights: Tensor | None = None
        if options and options.groups:
            groups = find_groups(options.groups, column.spec["target"]["categories"], self.thing, text)
            sides = torch.tensor(side_weights(variant, beta), device=text.device)
            weights = groups.class_weights(self.thing, sides, options.group_weight)
            self.class_weights = with_tails(weights, self.thing)

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        config = setup.config
        return cls(
            setup.column,
            setup.text(setup.column),
            tau=config.tau,
            theta=config.theta,
            variant=config.decoupling,
            beta=config.beta,
            reduction=config.reduction,
            kind=setup.kind,
            options=setup.options,
        )

    def _thresholds(self, column: Column, keep: float) -> Tensor:
        if not 0 < keep <= 1:
            raise DenseCLIError(
                f"The loss option region_kl.keep cannot be {keep:g}.", hint="Give a share above 0, at most 1."
            )
        device = self.thing.device
        stored = retemper(first_labels(column).to(device), self.stored_tau, self.tau, self.thing)
        confidence, best = (values.cpu().numpy() for values in stored.max(dim=-1))
        return torch.from_numpy(quantile_thresholds(confidence, best, stored.shape[1], keep)).to(device)

    def _teacher(self, batch: Batch) -> Tensor:
        return retemper(batch.targets[self.kind], self.stored_tau, self.tau, self.thing)

    def counts(self, batch: Batch) -> Tensor:
        """(3,) kept thing regions, kept stuff regions, all regions."""
        teacher = self._teacher(batch)
        return torch.cat([group_counts(teacher, self.thing, self.threshold), rows(teacher)])

    def learns_from(self, counts: Tensor) -> Tensor:
        """See `Term.learns_from`: the regions kept."""
        return counts[:2].sum()

    def agrees(self, student: StudentOutput, batch: Batch) -> Tensor:
        """See `Term.agrees`: the share of kept regions whose best category the student finds."""
        teacher = self._teacher(batch)
        return agreeing(student.regions @ self.text.T, teacher, kept_regions(teacher, self.threshold))

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`; logs the share of regions kept."""
        teacher = self._teacher(batch)
        loss = decoupled_kl(
            student.regions @ self.text.T,
            teacher,
            self.thing,
            tau=self.tau,
            theta=self.threshold,
            variant=self.variant,
            beta=self.beta,
            reduction=self.reduction,
            counts=counts[:2],
            class_weights=self.class_weights,
        )
        return loss, {"kept": mean(kept_regions(teacher, self.threshold), counts[2])}
