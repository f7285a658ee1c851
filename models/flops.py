"""The cost and the output shape of a forward pass, from torch's meta device: no weights, no arithmetic.

A FLOP is a multiplication or an addition; only matrix products and convolutions are counted.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from densecli.models.dense import DenseCLIP
from densecli.models.refiner import Refiner, make_refiner
from densecli.models.registry import build, resolve
from densecli.models.student import DenseVFM
from densecli.models.vfm import build_vfm
from densecli.models.vfms import find_vfm, is_vfm

# The backward pass does each product of the forward pass twice, for its input and for its weights. It is not
# counted by the library, which counts too much for grouped convolutions such as ConvNeXt's.
TRAINING = 3


class Forward(NamedTuple):
    """The forward pass of one picture: its FLOPs, and the shape of its output without the batch."""

    flops: int
    shape: tuple[int, ...]


@cache
def dense_forward(name: str, canvas: int, mode: str = "value") -> Forward:
    """The pass from a canvas to the dense map (C, h, w) of a CLIP."""
    model = _sketch(name)
    return _count(lambda pictures: model.dense(pictures, mode), model.input_side(canvas))


def student_forward(name: str, side: int) -> Forward:
    """The pass from a canvas to the dense map (C, h, w) of a student, a CLIP or a VFM."""
    return vfm_forward(name, side, find_vfm(name).patch) if is_vfm(name) else dense_forward(name, side)


@cache
def image_forward(name: str) -> Forward:
    """The pass from a picture of the native size to its embedding (C,)."""
    model = _sketch(name)
    return _count(model.encode_image, model.arch.native_side)


@cache
def vfm_forward(name: str, canvas: int, student_patch: int) -> Forward:
    """The pass from a canvas to a VFM's tokens (C, h, w), on the grid of a student with this patch."""
    with torch.device("meta"):
        model = build_vfm(find_vfm(name))
    return _count(model, model.arch.input_side(canvas, student_patch))


@cache
def refiner_forward(name: str, canvas: int, side: int) -> tuple[Forward, Forward]:
    """A Refiner's passes: to its first tokens (C, h, w), and to the tokens of one box (side * side, D)."""
    refiner = _sketch_of_refiner(name)
    with torch.device("meta"):
        box, of_image = torch.zeros(1, 4), torch.zeros(1)
    input_side = refiner.encoder.input_side(canvas)
    entry = _count(refiner.entry, input_side)
    both = _count(lambda pictures: refiner(pictures, box, of_image, side), input_side)
    return entry, Forward(both.flops - entry.flops, both.shape)


@cache
def refined_map_forward(name: str, canvas: int) -> Forward:
    """The pass from a canvas to a Refiner's map (D, h, w) of the whole of it."""
    refiner = _sketch_of_refiner(name)
    return _count(refiner.dense, refiner.encoder.input_side(canvas))


@cache
def _sketch_of_refiner(name: str) -> Refiner:
    with torch.device("meta"):
        return make_refiner(DenseVFM(build_vfm(find_vfm(name))) if is_vfm(name) else _sketch(name))


@cache
def _sketch(name: str) -> DenseCLIP:
    with torch.device("meta"):
        return build(resolve(name))


@torch.inference_mode()
def _count(forward: Callable[[Tensor], Tensor], side: int) -> Forward:
    with FlopCounterMode(display=False) as counter:
        output = forward(torch.empty(1, 3, side, side, device="meta"))
    return Forward(counter.get_total_flops(), tuple(output.shape[1:]))
