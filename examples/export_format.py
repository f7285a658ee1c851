"""An export format: the image tower alone, under the names that its own class gives its weights."""

from collections.abc import Mapping

from torch import Tensor

from densecli.models.dense import DenseCLIP
from densecli.models.student import Student
from densecli.train.exports import EXPORTS, ExportFormat


def weights(model: Student) -> Mapping[str, Tensor]:
    prefix = "visual."
    state = model.network.state_dict()
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


EXPORTS.add(
    "image-tower",
    ExportFormat(
        reader="an image tower alone",
        file_format="safetensors",
        fits=lambda model: isinstance(model, DenseCLIP),
        weights=weights,
        load=lambda model, file: f"visual.load_state_dict(safetensors.torch.load_file({file!r}))",
    ),
    help="The image tower of a CLIP alone.",
)
