"""The term `region_text`: the P-VLM's best category of a region is its pseudo label (RegionText)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.core.random_words import random_order
from densecli.train.dataloader import Batch
from densecli.train.losses import kept_regions, mean, region_text, region_text_bce
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows

LOSSES = ("softmax", "bce")


@TERMS.register(
    "region_text", help="Cross entropy with the P-VLM's best category of each region (RegionText)."
)
class RegionText(Term):
    """Cross entropy between the student's categories of a region and its pseudo label."""

    reads = ("labels",)
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
        return cls(text, tau=config.tau, theta=config.theta, kind=setup.kind, options=setup.options)

    def counts(self, batch: Batch) -> Tensor:
        """(2,) labelled regions, all regions."""
        kept = kept_regions(batch.targets[self.kind], self.theta)
        return torch.cat([kept.sum()[None], rows(kept)])

    def learns_from(self, counts: Tensor) -> Tensor:
        """See `Term.learns_from`: the regions labelled."""
        return counts[0]

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`; logs the share of regions labelled."""
        teacher = batch.targets[self.kind]
        kept = kept_regions(teacher, self.theta)
        cosines = student.regions[kept] @ self.text.T
        labels = teacher[kept].argmax(dim=-1)
        if self.options.loss == "softmax":
            loss = region_text(cosines, labels, self.tau, counts[0])
        else:
            photos = batch.batch_index[kept]
            sampled = sampled_categories(
                labels, photos, batch.keys, batch.epoch, count=self.options.sampled, categories=len(self.text)
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
        labels: (R,) int64.
        photos: (R,) int64, the photo of each region.
        keys: Keys of the photos.
        epoch: Counted from 0.
        count: Number of categories of each photo; its own labels are always among them.
        categories: D, the number of all.

    Returns:
        (R, D) bool.
    """
    chosen = torch.zeros(len(labels), categories, dtype=torch.bool, device=labels.device)
    for photo in photos.unique().tolist():
        regions = photos == photo
        own = labels[regions].unique()
        key = keys[photo] if keys else ""
        order = torch.from_numpy(random_order(f"categories/{epoch}/{key}", categories)).to(labels.device)
        others = order[~torch.isin(order, own)][: max(0, count - len(own))]
        of_photo = torch.zeros(categories, dtype=torch.bool, device=labels.device)
        of_photo[torch.cat([own, others])] = True
        chosen[regions] = of_photo
    return chosen
