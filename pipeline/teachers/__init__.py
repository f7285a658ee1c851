"""Teachers: frozen networks, each of which fills one column."""

from pipeline.teachers.base import Asking, Photo, Teacher, TeacherConfig, live
from pipeline.teachers.labels import LabelsConfig, LabelsTeacher

__all__ = ["Asking", "LabelsConfig", "LabelsTeacher", "Photo", "Teacher", "TeacherConfig", "live"]
