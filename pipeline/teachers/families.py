"""Families of teachers, which give meaning to a teacher's name: one for each kind of target.

A plug-in adds its own family:

    TEACHERS.add(
        "depth",
        TeacherFamily(
            kind="depth",
            models=lambda: ["midas-s"],
            configure=lambda model, settings: DepthConfig(model=model, codec=Rows(dtype=settings.codec)),
        ),
        help="A depth network's map.",
    )
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from densecli.core.errors import DenseCLIError
from densecli.core.registry import Registry, registry
from densecli.pipeline.teachers.base import TeacherConfig
from densecli.shards.kinds import KINDS

if TYPE_CHECKING:
    from densecli.pipeline.config import BuildConfig


@dataclass(frozen=True, kw_only=True)
class TeacherFamily:
    """Teachers of one kind of target. A teacher's name is the prefix of the kind and a model's name.

    Attributes:
        kind: Name of the kind of target in `densecli.shards.kinds.KINDS`.
        models: Names of the models, for suggestions.
        configure: Makes the config of a teacher from a model's name and the settings of the build.
        has_model: Whether a model of this name exists. None: whether `models` lists it.
        weights: The weights that a model's teacher needs: their names in --weights, by the key of their
            digest in the teacher's spec.
        placeholder: Stands for a model's name in messages.
    """

    kind: str
    models: Callable[[], Iterable[str]]
    configure: Callable[[str, BuildConfig], TeacherConfig]
    has_model: Callable[[str], bool] | None = None
    weights: Callable[[str], Mapping[str, str]] = lambda model: {"weights": model}
    placeholder: str = "MODEL"

    @property
    def prefix(self) -> str:
        """The part of a teacher's name before the model's name."""
        return KINDS[self.kind].prefix

    def model_of(self, name: str) -> str | None:
        """Returns the model of a teacher of this family; None for any other name."""
        if not name.startswith(self.prefix):
            return None
        model = name.removeprefix(self.prefix)
        known = self.has_model(model) if self.has_model else model in self.models()
        return model if known else None


TEACHERS: Registry[TeacherFamily] = registry(
    "teachers", package="densecli.pipeline.teachers", noun="teacher", of=TeacherFamily
)
"""Families of teachers by name."""


def find_teacher(name: str) -> tuple[TeacherFamily, str]:
    """Returns the family of a teacher, and the name of its model.

    Raises:
        DenseCLIError: There is no such teacher; the hint lists those that exist.
    """
    families = sorted((family for _, family in TEACHERS.items()), key=lambda family: -len(family.prefix))
    for family in families:
        if (model := family.model_of(name)) is not None:
            return family, model
    raise _unknown(name, families[::-1])


def teacher_config(name: str, settings: BuildConfig) -> TeacherConfig:
    """Configures a teacher for a build.

    Args:
        name: Name of the teacher: MODEL for labels, VFM for a Gram matrix, features-MODEL, crops-MODEL,
            self-MODEL, refiner-MODEL, or that of a plug-in.
        settings: Settings of the build.

    Raises:
        DenseCLIError: There is no such teacher, or its weights are missing.
    """
    family, model = find_teacher(name)
    return family.configure(model, settings)


def kind_of(name: str) -> str:
    """Returns the kind of target of a teacher."""
    return find_teacher(name)[0].kind


def weights_names(name: str) -> Mapping[str, str]:
    """Returns the names of a teacher's weights; see `TeacherFamily.weights`."""
    family, model = find_teacher(name)
    return family.weights(model)


def _unknown(name: str, families: list[TeacherFamily]) -> DenseCLIError:
    names = [f"{family.prefix}{model}" for family in families for model in family.models()]
    message = f"There is no teacher called {name!r}."
    if near := difflib.get_close_matches(name, names, n=3, cutoff=0.6):
        hint = f"Did you mean {' or '.join(near)}? densecli list teachers (models, vfms) describes them."
        return DenseCLIError(message, hint=hint)
    forms = []
    for placeholder in dict.fromkeys(family.placeholder for family in families):
        alike = [family for family in families if family.placeholder == placeholder]
        prefixed = " or ".join(f"{family.prefix}{placeholder}" for family in alike)
        models = dict.fromkeys(model for family in alike for model in family.models())
        forms.append(f"{prefixed}, {placeholder} being one of {', '.join(models)}")
    return DenseCLIError(message, hint=f"A teacher is {'; or '.join(forms)}.")
