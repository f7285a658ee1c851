"""The term `spatial`: token correlations inside each box learn to match another encoder's (R-SC)."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.shards.kinds import KINDS
from densecli.train.batch import Batch
from densecli.train.correlation import COMPARISONS, spatial_loss
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


@TERMS.register(
    "spatial", help="Cross entropy of token correlations inside each box with another encoder's (R-SC)."
)
class Spatial(Term):
    """`spatial_loss` of the student's tokens with a stored token map, or with stored tokens of each box."""

    reads = ("self", "refined", "gram")

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """The options of `spatial`.

        Attributes:
            boxes: `regions`: those of the region plan, as other terms. `photo`: the whole photo as one box
                (R-SC, table 14), for which the target must be a map.
            compare: `cross-entropy` of the rows' softmax, or the `frobenius` norm of the difference of the
                correlations (R-SC, table 6a).
        """

        boxes: str = "regions"
        compare: str = "cross-entropy"

    def __init__(
        self,
        kind: str,
        *,
        tau: float,
        side: int,
        tau_teacher: float | None = None,
        options: Options | None = None,
    ) -> None:
        """Keeps the settings.

        Args:
            kind: Kind of target, a token map or the tokens of each box.
            tau: See `spatial_loss`.
            side: See `spatial_loss`.
            tau_teacher: See `spatial_loss`.
            options: See `Options`.

        Raises:
            DenseCLIError: An option has no such value, or the whole photo is not among a target's boxes.
        """
        self.kind, self.tau, self.side, self.tau_teacher = kind, tau, side, tau_teacher
        self.options = options or self.Options()
        for name, known in (("boxes", ("regions", "photo")), ("compare", COMPARISONS)):
            if (value := getattr(self.options, name)) not in known:
                raise DenseCLIError(
                    f"The loss option spatial.{name} cannot be {value!r}.", hint=f"Give {' or '.join(known)}."
                )
        if self.options.boxes == "photo" and KINDS[kind].about_boxes:
            raise DenseCLIError(
                f"A column of kind {kind} has tokens of its own boxes, not of the whole photo.",
                hint="Learn from a map, such as spatial:refined-map or spatial:self.",
            )

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        config = setup.config
        return cls(
            setup.kind,
            tau=config.spatial_tau,
            side=config.spatial_side,
            tau_teacher=config.spatial_tau_teacher,
            options=setup.options,
        )

    def _boxes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The boxes, and the photo of each."""
        if self.options.boxes == "regions":
            return batch.boxes, batch.batch_index
        return batch.photos, torch.arange(len(batch.photos), device=batch.photos.device)

    def counts(self, batch: Batch) -> Tensor:
        """(1,) boxes."""
        return rows(self._boxes(batch)[0])

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`."""
        teacher = batch.targets[self.kind]
        loss = spatial_loss(
            F.normalize(student.dense, dim=1),
            teacher.permute(0, 3, 1, 2) if teacher.ndim == 4 else teacher,
            *self._boxes(batch),
            side=self.side,
            tau=self.tau,
            tau_teacher=self.tau_teacher,
            compare=self.options.compare,
            count=counts[0],
        )
        return loss, {}
