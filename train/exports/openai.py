"""OpenAI's checkpoint format, an archive of TorchScript, which `clip.load` and CAT-Seg read."""

from collections.abc import Mapping

from torch import Tensor

from densecli.models.checkpoint_formats import openai_builds, openai_weights, torchscript
from densecli.models.dense import DenseCLIP
from densecli.models.student import Student
from densecli.train.exports import EXPORTS, ExportFormat


def fits(model: Student) -> bool:
    """See `ExportFormat.fits`."""
    return isinstance(model, DenseCLIP) and openai_builds(model.arch)


def weights(model: Student) -> Mapping[str, Tensor]:
    """See `ExportFormat.weights`."""
    assert isinstance(model, DenseCLIP)
    return openai_weights(model)


EXPORTS.add(
    "openai",
    ExportFormat(
        reader="that of the ViTs and ResNets that OpenAI's loader builds",
        file_format="pt",
        fits=fits,
        weights=weights,
        load=lambda model, file: f"clip.load({file!r}, jit=False)",
        serialise=torchscript,
    ),
    help="OpenAI's CLIP: for its clip.load, and CAT-Seg.",
)
