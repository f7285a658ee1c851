"""timm's checkpoint format, for the image tower alone."""

from densecli.models.checkpoint_formats import timm_model, timm_weights
from densecli.models.student import Student
from densecli.train.exports import EXPORTS, ExportFormat


def load(model: Student, file: str) -> str:
    """See `ExportFormat.load`."""
    name, options = timm_model(model) or ("", {})
    arguments = "".join(f", {option}={value!r}" for option, value in options.items())
    return f"timm.create_model({name!r}{arguments}, checkpoint_path={file!r})"


EXPORTS.add(
    "timm",
    ExportFormat(
        reader="timm's, for the image tower alone",
        file_format="safetensors",
        fits=lambda model: timm_model(model) is not None,
        weights=timm_weights,
        load=load,
    ),
    help="timm: the image tower alone, of a CLIP or a vision foundation model.",
)
