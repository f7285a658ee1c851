"""The term `region_text`: the P-VLM's best category of a region is its pseudo label (RegionText)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.core.random_words import random_order
from densecli.train.batch import Batch
from densecli.train.losses import UNLABELLED, kept_regions, mean, region_text, region_text_bce
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, agreeing, rows
from densecli.train.thresholds import unlabelled_up_to

LOSSES = ("softmax", "bce")


@TERMS.register(
    "region_text", help="Cross entropy with the P-VLM's best category of each region (RegionText)."
)
class RegionText(Term):
    """Cross entropy between the student's categories of a region and its pseudo label."""

    reads = ("labels",)
    agreement = "agreement"
    theta: float

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """The options of `region_text`.

        Attributes:
            loss: `softmax`: over all categories. `bce`: the released code's, a binary cross entropy for each
                of `sampled` categories.
            sampled: Number of categories of each photo: its own labels, then random ones.
        """

        loss: str = "softmax"
        sampled: int = 100

    def __init__(
        self, text: Tensor, *, tau: float, theta: float, kind: str, options: Options | None = None
    ) -> None:
        """Keeps the categories.

        Args:
            text: (D, C) the student's own unit embeddings of the column's D categories.
            tau: The student's temperature.
            theta: Regions whose best category is not above this probability have no label.
            kind: Key of the column's targets in a batch.
            options: See `Options`.

        Raises:
            DenseCLIError: There is no such loss, or no category is sampled.
        """
        self.options = options or self.Options()
        if self.options.loss not in LOSSES:
            raise DenseCLIError(
                f"The loss option region_text.loss cannot be {self.options.loss!r}.",
                hint=f"Give {' or '.join(LOSSES)}.",
            )
        if self.options.sampled < 1:
            raise DenseCLIError(
                f"The loss option region_text.sampled cannot be {self.options.sampled}.",
                hint="Give 1 or more.",
            )
        self.text, self.tau, self.theta, self.kind = text, tau, theta, kind

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        config = setup.config
        text = setup.text(setup.column)
        theta = max(config.theta, unlabelled_up_to(setup.column))
        return cls(text, tau=config.tau, theta=theta, kind=setup.kind, options=setup.options)

    def counts(self, batch: Batch) -> Tensor:
        """(2,) labelled regions, all regions."""
        kept = kept_regions(batch.targets[self.kind], self.theta)
        return torch.cat([kept.sum()[None], rows(kept)])

    def learns_from(self, counts: Tensor) -> Tensor:
        """See `Term.learns_from`: the regions labelled."""
        return counts[0]

    def agrees(self, student: StudentOutput, batch: Batch) -> Tensor:
        """See `Term.agrees`: the share of labelled regions whose label the student finds."""
        teacher = batch.targets[self.kind]
        return agreeing(student.regions @ self.text.T, teacher, kept_regions(teacher, self.theta))

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`; logs the share of regions labelled."""
        teacher = batch.targets[self.kind]
        kept = kept_regions(teacher, self.theta)
        cosines = student.regions @ self.text.T
        labels = teacher.argmax(dim=-1).masked_fill(~kept, UNLABELLED)
        if self.options.loss == "softmax":
            loss = region_text(cosines, labels, self.tau, counts[0])
        else:
            sampled = sampled_categories(
                labels,
                batch.batch_index,
                batch.keys or ("",) * len(batch.images),
                batch.epoch,
                count=self.options.sampled,
                categories=len(self.text),
            )
            loss = region_text_bce(cosines, labels, sampled, self.tau, counts[0])
        return loss, {"labelled": mean(kept, counts[1])}


def sampled_categories(
    labels: Tensor, photos: Tensor, keys: Sequence[str], epoch: int, *, count: int, categories: int
) -> Tensor:
    """Chooses the categories that each region is told apart from.

    The released code chooses them for a batch. Here each photo has its own, a function of key and epoch, so
    that the loss does not depend on how a step is shared out.

    Args:
        labels: (R,) int64; UNLABELLED for a region without a label.
        photos: (R,) int64, the photo of each region.
        keys: Keys of the B photos.
        epoch: Counted from 0.
        count: Number of categories of each photo; its own labels are always among them.
        categories: D, the number of all.

    Returns:
        (R, D) bool.
    """
    device = labels.device
    orders = np.stack([random_order(f"categories/{epoch}/{key}", categories) for key in keys])
    order = torch.from_numpy(orders).to(device, non_blocking=True)
    # (B, D): the labels of each photo; a last column takes the regions without one.
    place = photos * (categories + 1) + labels.masked_fill(labels == UNLABELLED, categories)
    own = torch.zeros(len(keys) * (categories + 1), dtype=torch.bool, device=device).scatter(0, place, True)
    own = own.view(len(keys), -1)[:, :-1]
    # The first of the others in the photo's order, until there are `count`.
    other = ~own.gather(1, order)
    first = other & (other.cumsum(dim=1) <= count - own.sum(dim=1, keepdim=True))
    return (own | torch.zeros_like(own).scatter(1, order, first))[photos]
