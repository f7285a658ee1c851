"""Export formats by name: the checkpoint formats that other projects read.

To add one, write a module in this package, or a plug-in:

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

FileFormat = Literal["safetensors", "pt", "onnx"]
FOLDER_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A checkpoint format.

    Attributes:
        reader: Describes the format in error messages, such as "OpenCLIP's".
        file_format: File format that its readers open.
        fits: Whether the format can hold a student.
        weights: From a student to its weights under the names of the format. They may share memory with the
            student and with each other. Values are not changed, nor positions resized: readers do that.
        load: From a student and the path of its file to the Python code that loads it.
        config: From a student to the configuration that a reader needs besides the file, which is written to
            NAME.json of the architecture; None if it needs none.
        serialise: From the weights to the bytes of a .pt file; None for those of torch.save.
        graph: For a format that holds the computation too: from a student and its model card to the bytes of
            a file. None for a format of weights alone.
        files: For a format that is a folder: from a student and its model card to the files beside the
            weights, by name. The weights are FOLDER_WEIGHTS there. None for a format that is one file.
    """

    reader: str
    file_format: FileFormat
    fits: Callable[[Student], bool]
    weights: Callable[[Student], Mapping[str, Tensor]]
    load: Callable[[Student, str], str]
    config: Callable[[Student], dict[str, Any] | None] = lambda model: None
    serialise: Callable[[Mapping[str, Tensor]], bytes] | None = None
    graph: Callable[[Student, Mapping[str, Any]], bytes] | None = None
    files: Callable[[Student, Mapping[str, Any]], Mapping[str, bytes]] | None = None


EXPORTS: Registry[ExportFormat] = registry("exports", package=__name__, noun="export format", of=ExportFormat)


def formats_of(model: Student) -> list[str]:
    """Names of the formats that can hold a student."""
    return [name for name, format in EXPORTS.items() if format.fits(model)]


def export_weights(model: Student, name: str) -> dict[str, Tensor]:
    """The weights of a student in a format; see `ExportFormat.weights`.

    Raises:
        DenseCLIError: The format is unknown, or cannot hold the student.
    """
    format = EXPORTS[name]
    if not format.fits(model):
        raise DenseCLIError(
            f"{model.arch.name} does not fit the format {name} ({format.reader}).",
            hint=f"It can be exported as {' or '.join(formats_of(model))}.",
        )
    return dict(format.weights(model))
