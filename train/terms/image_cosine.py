"""The term `image_cosine`: the student's image embedding stays that of its CLIP."""

from typing import Self

from torch import Tensor

from densecli.train.batch import Batch
from densecli.train.columns import own_teachers
from densecli.train.losses import region_cosine
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup
from densecli.train.terms.base import Values, rows
from densecli.train.widths import check_width, embedding_width


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
            term.check(embedding_width(setup.column), setup.width)
        return term

    def check(self, teacher: int, student: int) -> None:
        """Raises DenseCLIError if the column's embeddings have other dimensions than the student's."""
        hint = "Choose the column of the student's own architecture with --teacher."
        check_width(teacher, student, f"The photos of {self.name}", hint)

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
        self.check(teacher.shape[-1], image.shape[-1])
        return region_cosine(image, teacher, counts[0]), {}
