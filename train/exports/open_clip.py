"""OpenCLIP's own checkpoint format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecli.models.dense import DenseCLIP
from densecli.models.student import Student
from densecli.train.exports import EXPORTS, ExportFormat


def load(model: Student, file: str) -> str:
    """See `ExportFormat.load`. Networks that open_clip does not know come with a configuration file."""
    name = model.arch.name
    if config(model) is None:
        return f"open_clip.create_model({open_clip_name(model)!r}, pretrained={file!r})"
    beside = str(Path(file).with_name(f"{name}.json"))
    return f"open_clip.add_model_config({beside!r}); open_clip.create_model({name!r}, pretrained={file!r})"


def config(model: Student) -> dict[str, Any] | None:
    """The configuration of a network that open_clip does not know by name."""
    if isinstance(model, DenseCLIP) and isinstance(model.arch.config, Mapping):
        return model.arch.clip_config()
    return None


def open_clip_name(model: Student) -> str:
    """The network's name in open_clip."""
    assert isinstance(model, DenseCLIP) and isinstance(model.arch.config, str)
    return model.arch.config


EXPORTS.add(
    "open_clip",
    ExportFormat(
        reader="OpenCLIP's",
        file_format="safetensors",
        fits=lambda model: isinstance(model, DenseCLIP),
        weights=lambda model: model.network.state_dict(),
        load=load,
        config=config,
    ),
    help="OpenCLIP: image tower and text tower of a CLIP.",
)
