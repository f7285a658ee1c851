"""Kinds of target: what there is to know of what teachers say, whichever teacher says it."""

from dataclasses import dataclass
from typing import Any, Literal

from densecli.core.registry import Registry, registry

TAU = 0.01
"""Softmax temperature at which labels are retrieved and learnt (DenseVLM, eq. 2)."""
Layout = Literal["cells", "views", "map"]


@dataclass(frozen=True, kw_only=True)
class TargetKind:
    """One kind of target.

    Attributes:
        name: `spec["target"]["name"]` of its columns, such as labels.
        prefix: What stands before the model in the names of its teachers, such as `crops-`. Empty where a
            teacher goes by its model's name alone.
        layout: How the stored arrays lie. `cells`: a row for each box of every view. `views`: rows for the
            boxes of some views alone; the stored array `views` (K,) says of which, in that order. `map`: a row
            for each token of a map; the stored array `grid` says its (h, w).
        read_by: Loss terms that learn from it; a term may name further kinds itself.
        own_teacher: Whether its teacher is, by default, the student's own architecture as it came.
        read_as: The kind that a training reads in its place, for what is relabelled first. Empty where it is
            read itself.
    """

    name: str
    prefix: str
    layout: Layout
    read_by: tuple[str, ...] = ()
    own_teacher: bool = False
    read_as: str = ""

    @property
    def about_boxes(self) -> bool:
        """Whether its targets are about the boxes of one region plan; those of a map hold for any boxes."""
        return self.layout != "map"


KINDS: Registry[TargetKind] = registry("kinds", package=__name__, noun="kind of target")


def kind_of_spec(spec: dict[str, Any]) -> TargetKind:
    """The kind of a target column's spec. Raises DenseCLIError for one that no plug-in here knows."""
    return KINDS[spec["target"]["name"]]
