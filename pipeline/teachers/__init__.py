"""Teachers: frozen networks, each of which fills one column."""

from pipeline.teachers.base import Teacher, TeacherConfig
from pipeline.teachers.labels import LabelsConfig, LabelsTeacher

__all__ = ["LabelsConfig", "LabelsTeacher", "Teacher", "TeacherConfig"]
