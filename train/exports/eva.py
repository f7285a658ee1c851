"""EVA-CLIP's checkpoint format, which CLIPSelf, DenseVLM, DeCLIP, F-ViT and OV-DQUO read."""

from collections.abc import Mapping

from torch import Tensor

from densecli.models.checkpoint_formats import eva_weights
from densecli.models.eva import DenseEva
from densecli.models.student import Student
from densecli.train.exports import EXPORTS, ExportFormat
from densecli.train.exports.open_clip import open_clip_name


def weights(model: Student) -> Mapping[str, Tensor]:
    """See `ExportFormat.weights`."""
    assert isinstance(model, DenseEva)
    return eva_weights(model)


def load(model: Student, file: str) -> str:
    """See `ExportFormat.load`."""
    name = open_clip_name(model).replace("EVA02-", "EVA02-CLIP-")
    return f"eva_clip.create_model({name!r}, pretrained={file!r}, force_custom_clip=True)"


EXPORTS.add(
    "eva",
    ExportFormat(
        reader="that of EVA-CLIP's towers",
        # Its readers only know torch.load.
        file_format="pt",
        fits=lambda model: isinstance(model, DenseEva),
        weights=weights,
        load=load,
    ),
    help="EVA-CLIP: for CLIPSelf, DenseVLM, DeCLIP, F-ViT and OV-DQUO.",
)
