"""Teachers: frozen networks, each of which fills one column. Plug-ins register others in `TEACHERS`."""

from densecli.pipeline.teachers.base import Cost, Photo, Teacher, TeacherConfig
from densecli.pipeline.teachers.families import (
    TEACHERS,
    TeacherFamily,
    find_teacher,
    kind_of,
    teacher_config,
    weights_names,
)

__all__ = [
    "TEACHERS",
    "Cost",
    "Photo",
    "Teacher",
    "TeacherConfig",
    "TeacherFamily",
    "find_teacher",
    "kind_of",
    "teacher_config",
    "weights_names",
]
