"""The term `region_kl`: the student's distribution over categories learns to match the P-VLM's (DenseVLM)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.shards.store import Column
from densecli.train.batch import Batch
from densecli.train.config import Reduction
from densecli.train.groups import CLUSTERS, find_groups, with_tails
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
from densecli.train.thresholds import first_labels, quantile_thresholds, unlabelled_up_to


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
            group_weight: With groups: weight of the other groups of the same side (things or stuff) for a
                region, from 0 to 1, where the file gives none.
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
            DenseCLIError: The groups cannot be found, or an option cannot have its value.
        """
        options = options or self.Options()
        self.stored_tau: float = column.spec["target"]["tau"]
        self.thing = torch.tensor(column.spec["codec"]["things"], device=text.device)
        self.text, self.tau = text, tau
        self.unlabelled = unlabelled_up_to(column)
        self.theta = max(theta, self.unlabelled)
        self.variant, self.beta, self.reduction = variant, beta, reduction
        self.kind = kind
        self.threshold: float | Tensor = self.theta
        self.notes: list[str] = []
        categories = column.spec["target"]["categories"]
        if options.keep:
            self.theta = None
            self.threshold = self._thresholds(column, options.keep)
            lowest, highest = (float(f(self.threshold[: len(categories)])) for f in (torch.min, torch.max))
            self.notes.append(
                f"Thresholds that keep {options.keep:.3g} of each category's regions replace --theta: "
                f"{lowest:.2f} to {highest:.2f}."
            )
        self.class_weights = self._class_weights(options, categories)

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
        labelled = confidence > self.unlabelled
        found = quantile_thresholds(confidence[labelled], best[labelled], stored.shape[1], keep)
        return torch.from_numpy(found.clip(min=self.unlabelled)).to(device)

    def _class_weights(self, options: Options, categories: Sequence[str]) -> Tensor | None:
        if not 0 <= options.group_weight <= 1:
            raise DenseCLIError(
                f"The loss option region_kl.group_weight cannot be {options.group_weight:g}.",
                hint="Give a weight from 0 to 1.",
            )
        if not options.groups:
            if options.group_weight != self.Options.group_weight:
                raise DenseCLIError(
                    "The loss option region_kl.group_weight is about groups, and there are none.",
                    hint="Add --loss-option region_kl.groups=FILE, or cluster:K.",
                )
            return None
        groups = find_groups(options.groups, categories, self.thing, self.text)
        if not options.groups.startswith(CLUSTERS):
            self.files = {"groups": hashlib.sha256(Path(options.groups).read_bytes()).hexdigest()}
        self.notes.append(groups.told(categories))
        sides = torch.tensor(side_weights(self.variant, self.beta), device=self.text.device)
        return with_tails(groups.class_weights(self.thing, sides, options.group_weight), self.thing)

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
