"""What a forward pass costs and gives, counted on torch's meta device: no weights, no memory, no arithmetic.

A FLOP is a multiplication or an addition; only matrix products and convolutions are counted.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from densecli.models.dense import DenseCLIP
from densecli.models.refiner import make_refiner
from densecli.models.registry import build, resolve
from densecli.models.student import DenseVFM
from densecli.models.vfm import build_vfm
from densecli.models.vfms import find_vfm, is_vfm

# The backward pass does each product of the forward pass twice, for its input and for its weights. What the
# library counts backwards is too much for convolutions in groups, as ConvNeXt's.
TRAINING = 3


class Forward(NamedTuple):
    """Of one picture. shape: of what comes out, without the batch."""

    flops: int
    shape: tuple[int, ...]


@cache
def dense_forward(name: str, canvas: int, mode: str = "value") -> Forward:
    """The dense map (C, h, w) of a canvas by a model, by name or alias."""
    model = _sketch(name)
    return _count(lambda pictures: model.dense(pictures, mode), model.input_side(canvas))


def student_forward(name: str, side: int) -> Forward:
    """The dense map of a canvas of that side by a student, which may be a VFM."""
    return vfm_forward(name, side, find_vfm(name).patch) if is_vfm(name) else dense_forward(name, side)


@cache
def image_forward(name: str) -> Forward:
    """The embedding (C,) of a picture of the model's own size."""
    model = _sketch(name)
    return _count(model.encode_image, model.arch.native_side)


@cache
def vfm_forward(name: str, canvas: int, student_patch: int) -> Forward:
    """The tokens (C, h, w) of a canvas by a VFM, on the grid of a student of that patch."""
    with torch.device("meta"):
        model = build_vfm(find_vfm(name))
    return _count(model, model.arch.input_side(canvas, student_patch))


@cache
def refiner_forward(name: str, canvas: int, side: int) -> tuple[Forward, Forward]:
    """Of a model's Refiner: the tokens (C, h, w) that it starts from, and the tokens (side * side, D) of one
    box."""
    with torch.device("meta"):
        encoder = DenseVFM(build_vfm(find_vfm(name))) if is_vfm(name) else _sketch(name)
        refiner = make_refiner(encoder)
        box, of_image = torch.zeros(1, 4), torch.zeros(1)
    input_side = encoder.input_side(canvas)
    entry = _count(refiner.entry, input_side)
    both = _count(lambda pictures: refiner(pictures, box, of_image, side), input_side)
    return entry, Forward(both.flops - entry.flops, both.shape)


@cache
def _sketch(name: str) -> DenseCLIP:
    with torch.device("meta"):
        return build(resolve(name))


@torch.inference_mode()
def _count(look: Callable[[Tensor], Tensor], side: int) -> Forward:
    with FlopCounterMode(display=False) as counter:
        seen = look(torch.empty(1, 3, side, side, device="meta"))
    return Forward(counter.get_total_flops(), tuple(seen.shape[1:]))
