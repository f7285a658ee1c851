"""Kinds of target: everything that other rooms need to know about teachers' outputs, whatever the teacher.

A plug-in registers a further kind in `KINDS`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from densecli.core.registry import Registry, registry
from densecli.shards.specs import ColumnSpec, TeacherSpec

TAU = 0.01
"""Softmax temperature at which labels are retrieved and learnt (DenseVLM, eq. 2)."""
Layout = Literal["cells", "views", "map", "image"]


@dataclass(frozen=True, kw_only=True)
class TargetKind:
    """One kind of target.

    Attributes:
        name: `spec["target"]["name"]` of its columns, such as labels.
        prefix: Prefix of the model in the names of its teachers, such as `crops-`; empty if a teacher has the
            name of its model.
        layout: The meaning of the rows of the stored arrays. `cells`: a row for each box of every view.
            `views`: rows for the boxes of some views, which the stored array `views` (K,) lists in order.
            `map`: a row for each token of a map, whose (h, w) is the stored array `grid`. `image`: one row
            for the whole photo. In `cells` and `views`, a box has side * side rows, its tokens, if the
            column's `spec["target"]` has a `side`.
        read_by: Loss terms that learn from it. A term may name other kinds itself.
        options: Options that choose between its columns, besides --teacher and --regions: categories, views,
            refiner.
        own_teacher: Whether its default teacher is the student's own architecture with its original weights.
        relabelled_as: Kind of target that `densecli relabel` makes of it; empty if there is none.
        relabelled_prefix: Prefix of the model in the names of the columns that it makes.
    """

    name: str
    prefix: str
    layout: Layout
    read_by: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    own_teacher: bool = False
    relabelled_as: str = ""
    relabelled_prefix: str = ""

    @property
    def about_boxes(self) -> bool:
        """Whether its targets are about the boxes of one region plan; others hold for any boxes."""
        return self.layout in ("cells", "views")

    @property
    def read_kind(self) -> str:
        """The kind that a training reads: this one, or `relabelled_as` if no loss term reads this one."""
        return self.name if self.read_by or not self.relabelled_as else self.relabelled_as

    def serves(self, kinds: Collection[str]) -> bool:
        """Whether a training that reads `kinds` needs a teacher of this kind."""
        return self.read_kind in kinds or self.relabelled_as in kinds

    def teacher_name(self, model: str) -> str:
        """Name of the teacher that gives it with a model."""
        return f"{self.prefix}{model}"


KINDS: Registry[TargetKind] = registry("kinds", package=__name__, noun="kind of target", of=TargetKind)


def kind_of_spec(spec: ColumnSpec | TeacherSpec) -> TargetKind:
    """The kind of a target column, or of a teacher, by its spec. Raises DenseCLIError for an unknown one."""
    return KINDS[spec["target"]["name"]]
