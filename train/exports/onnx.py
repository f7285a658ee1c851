"""ONNX: a student's dense map and image embedding as a graph that onnxruntime runs without PyTorch."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.dense import DenseCLIP
from densecli.models.student import Student
from densecli.train.exports import EXPORTS, ExportFormat

INPUT, OUTPUTS = "images", ("dense", "image")
LARGEST = 2**31 - 1
"""Bytes of a protocol buffer at most."""
_BATCH = 4096


class ImageTower(nn.Module):
    """What the graph computes.

    Attributes:
        model: The student.
        mode: How the last block is read out.
    """

    def __init__(self, model: DenseCLIP, mode: str) -> None:
        super().__init__()
        self.model, self.mode = model, mode

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) normalised pixels -> the dense map (B, D, h, w) and image embeddings (B, D)."""
        dense, _, image = self.model(images, self.mode, image=True)
        return dense, image


def graph(model: Student, card: Mapping[str, Any]) -> bytes:
    """See `ExportFormat.graph`. Any number of photos of the canvas of the training fits.

    Raises:
        DenseCLIError: The packages of the extra `onnx` are not installed, or the weights are too large.
    """
    assert isinstance(model, DenseCLIP)
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise DenseCLIError(
            f"The format onnx needs the package {error.name}, which is not installed.",
            hint="Install it with: pip install 'densecli[onnx]'",
        ) from None
    if (size := sum(weight.nbytes for weight in weights(model).values())) > LARGEST:
        raise DenseCLIError(
            f"The image tower of {model.arch.name} has {size / 1e9:.1f} GB, more than a file of ONNX holds.",
            hint=f"Choose another format: {', '.join(name for name in EXPORTS if name != 'onnx')}.",
        )
    side = card["image_size"]
    # Two photos: PyTorch takes a batch of one for a constant.
    photos = torch.zeros(2, 3, side, side)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                ImageTower(model, card["mode"]).eval(),
                (photos,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=_BATCH)},),
            )
    finally:
        log.setLevel(level)
    assert program is not None
    found = program.model_proto
    _forget_sources(found)
    facts = {"student": model.arch.name, "mode": card["mode"], "image_size": side}
    facts |= {"mean": list(model.arch.mean), "std": list(model.arch.std)}
    onnx.helper.set_model_props(found, {name: json.dumps(value) for name, value in facts.items()})
    data: bytes = found.SerializeToString()
    return data


def _forget_sources(proto: Any) -> None:
    """Removes what PyTorch notes of the lines of Python that made each node: paths of this machine."""
    for owner in (proto.graph, *proto.functions):
        for each in (owner, *owner.node, *owner.value_info, *getattr(owner, "initializer", ())):
            del each.metadata_props[:]
            each.doc_string = ""


def weights(model: Student) -> Mapping[str, Tensor]:
    """See `ExportFormat.weights`: those of the image tower."""
    state = model.state_dict()
    return {name: weight for name, weight in state.items() if name.startswith("clip.visual.")}


def load(_: Student, file: str) -> str:
    """See `ExportFormat.load`."""
    return f"onnxruntime.InferenceSession({file!r}).run({list(OUTPUTS)}, {{{INPUT!r}: pixels}})"


EXPORTS.add(
    "onnx",
    ExportFormat(
        reader="ONNX, for the image tower alone",
        file_format="onnx",
        fits=lambda model: isinstance(model, DenseCLIP),
        weights=weights,
        load=load,
        graph=graph,
    ),
    help="ONNX: dense map and image embedding, for onnxruntime without PyTorch.",
)
