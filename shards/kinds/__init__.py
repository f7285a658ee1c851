"""Kinds of target: all that the rooms need to know about what teachers give, whichever teacher gives it.

A plug-in registers a further kind in `KINDS`.
"""

from dataclasses import dataclass
from typing import Literal

from densecli.core.registry import Registry, registry
from densecli.shards.specs import ColumnSpec, TeacherSpec

TAU = 0.01
"""Softmax temperature at which labels are retrieved and learnt (DenseVLM, eq. 2)."""
Layout = Literal["cells", "views", "map"]


@dataclass(frozen=True, kw_only=True)
class TargetKind:
    """One kind of target.

    Attributes:
        name: `spec["target"]["name"]` of its columns, such as labels.
        prefix: Precedes the model in the names of its teachers, such as `crops-`. Empty where a teacher has
            its model's name.
        layout: What the rows of the stored arrays are. `cells`: one row per box of every view. `views`: rows
            of the boxes of some views only, given in order by the stored array `views` (K,). `map`: one row
            per token of a map, whose (h, w) is the stored array `grid`. In the first two, a box has
            side * side rows, its tokens, where the column's `spec["target"]` has a `side`.
        read_by: Loss terms that learn from it. A term may name further kinds itself.
        options: Options that choose between its columns, beside --teacher and --regions: categories, views,
            refiner.
        own_teacher: Whether its default teacher is the student's own architecture with its original weights.
        read_as: Kind that a training reads instead, where the targets are first relabelled. Empty otherwise.
        relabelled_prefix: Precedes the model in the names of the columns made by relabelling.
    """

    name: str
    prefix: str
    layout: Layout
    read_by: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    own_teacher: bool = False
    read_as: str = ""
    relabelled_prefix: str = ""

    @property
    def about_boxes(self) -> bool:
        """Whether its targets are about the boxes of one region plan; a map holds for any boxes."""
        return self.layout != "map"

    @property
    def read_kind(self) -> str:
        """The kind that a training reads: this one, or `read_as`."""
        return self.read_as or self.name

    def teacher_name(self, model: str) -> str:
        """Name of the teacher that gives it with a model."""
        return f"{self.prefix}{model}"


KINDS: Registry[TargetKind] = registry("kinds", package=__name__, noun="kind of target", of=TargetKind)


def kind_of_spec(spec: ColumnSpec | TeacherSpec) -> TargetKind:
    """The kind of a target column, or of a teacher, by its spec. Raises DenseCLIError for an unknown one."""
    return KINDS[spec["target"]["name"]]


def split_teacher(name: str) -> tuple[TargetKind | None, str]:
    """The kind whose prefix a teacher's name begins with, and the model after it.

    Returns:
        The kind with the longest such prefix, and the rest of the name. (None, `name`) if there is none: what
        the teacher gives then follows from its model.
    """
    prefixed = [kind for _, kind in KINDS.items() if kind.prefix and name.startswith(kind.prefix)]
    if not prefixed:
        return None, name
    kind = max(prefixed, key=lambda kind: len(kind.prefix))
    return kind, name.removeprefix(kind.prefix)
