"""Export formats by name: the checkpoint formats that other projects read.

A new one is a module of this package, or a plug-in:

    from densecli.train.exports import EXPORTS, ExportFormat

    EXPORTS.add("mine", ExportFormat(...), help="Whose format it is.")
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.core.registry import Registry, registry
from densecli.models.student import Student

FileFormat = Literal["safetensors", "pt"]


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A checkpoint format.

    Attributes:
        reader: Whose format it is, for error messages.
        file_format: File format that its readers open.
        fits: Whether it can hold a student.
        weights: The student's weights under the names of the format, perhaps sharing memory with the student
            and with each other. No value is changed and none resized: readers resize positions themselves.
        load: Python code that loads a file of the format into what reads it.
        config: Configuration that a reader needs beside the file, written to NAME.json of the architecture;
            None where it needs none.
    """

    reader: str
    file_format: FileFormat
    fits: Callable[[Student], bool]
    weights: Callable[[Student], Mapping[str, Tensor]]
    load: Callable[[Student, str], str]
    config: Callable[[Student], dict[str, Any] | None] = lambda model: None


EXPORTS: Registry[ExportFormat] = registry("exports", package=__name__, noun="export format", of=ExportFormat)


def formats_of(model: Student) -> list[str]:
    """Names of the formats that can hold a student."""
    return [name for name, format in EXPORTS.items() if format.fits(model)]


def export_weights(model: Student, name: str) -> dict[str, Tensor]:
    """The weights of a student in a format; see `ExportFormat.weights`.

    Raises:
        DenseCLIError: Where the format is unknown or cannot hold the student.
    """
    format = EXPORTS[name]
    if not format.fits(model):
        raise DenseCLIError(
            f"{model.arch.name} does not fit the format {name}, {format.reader}.",
            hint=f"It can be exported as {' or '.join(formats_of(model))}.",
        )
    return dict(format.weights(model))
