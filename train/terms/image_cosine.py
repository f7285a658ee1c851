"""The term `image_cosine`: the student's image embedding stays that of its CLIP."""

from typing import Self

from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.train.batch import Batch
from densecli.train.columns import own_teachers
from densecli.train.losses import region_cosine
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows


@TERMS.register("image_cosine", help="Cosine distance of the student's image embedding to a stored one.")
class ImageCosine(Term):
    """1 - mean cosine between the student's image embedding and a stored one of the whole photo.

    Distillation of regions costs a CLIP image-level accuracy. This term holds the image embedding where it
    was. It comes from the same forward pass, by the last block as it is.
    """

    reads = ("cls",)
    reads_image = True

    def __init__(self, kind: str = "cls", name: str = "the column") -> None:
        """Keeps the key of its targets in a batch, and the column's name for error messages."""
        self.kind, self.name = kind, name

    @classmethod
    def build(cls, setup: TermSetup) -> Self:
        """See `Term.build`."""
        term = cls(setup.kind, setup.column.name)
        student = setup.config.student
        if setup.column.name not in own_teachers(setup.kind, student):
            term.notes = [
                f"{setup.column.name} has the image embeddings of another model than the student {student}; "
                "image_cosine compares the two."
            ]
        return term

    def counts(self, batch: Batch) -> Tensor:
        """(1,) images."""
        return rows(batch.images)

    def outputs_read(self, student: StudentOutput) -> list[Tensor]:
        """See `Term.outputs_read`."""
        assert student.image is not None
        return [student.image]

    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """See `Term.__call__`."""
        teacher, image = batch.targets[self.kind], student.image
        assert image is not None
        if teacher.shape != image.shape:
            raise DenseCLIError(
                f"{self.name} has {teacher.shape[-1]}-dimensional embeddings, but the student's have "
                f"{image.shape[-1]} dimensions.",
                hint="Choose the column of the student's own architecture with --teacher.",
            )
        return region_cosine(image, teacher, counts[0]), {}
