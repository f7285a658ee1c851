"""DeCLIP's two losses against the figures of its released code, from its inputs and from our own student."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.shards.codecs import LowRank
from densecli.train.correlation import context_loss, unit_tokens
from densecli.train.losses import region_cosine
from densecli.train.terms import StudentOutput
from densecli.train.terms.context import context_tokens

SIDES = (64, 128)
HEADS = 2


@pytest.fixture(scope="module")
def figures(golden: Path) -> dict[str, Tensor]:
    with np.load(golden / "eva_declip.npz", allow_pickle=False) as file:
        names = [name for name in file.files if name.endswith(("_64", "_128"))]
        return {name: torch.from_numpy(np.array(file[name])) for name in names}


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def student(figures: dict[str, Tensor], side: int) -> StudentOutput:
    """(B * heads, N, d) context features as the map that our encoder gives."""
    heads = figures[f"context_qq_vfm_distill_{side}"].unflatten(0, (-1, HEADS))
    grid = figures[f"vfm_feats_{side}"].shape[-2:]
    context = heads.transpose(2, 3).flatten(1, 2).unflatten(2, grid)
    return StudentOutput(context, torch.empty(0), {"q": context})


@pytest.mark.parametrize("side", SIDES)
def test_region_cosine__declip_content(figures: dict[str, Tensor], side: int) -> None:
    loss = region_cosine(figures[f"roi_qq_vfm_distill_{side}"], figures[f"crop_cls_{side}"])
    close(loss, figures[f"loss_content_{side}"])


@pytest.mark.parametrize("side", SIDES)
def test_context_tokens__declip_student_similarity(figures: dict[str, Tensor], side: int) -> None:
    tokens = context_tokens(student(figures, side))
    close(tokens @ tokens.mT, figures[f"student_similarity_{side}"])


@pytest.mark.parametrize("block", [1, 1000, 2**21])
@pytest.mark.parametrize("side", SIDES)
def test_context_loss__declip_context(figures: dict[str, Tensor], side: int, block: int) -> None:
    teacher = unit_tokens(figures[f"vfm_feats_{side}"])
    loss = context_loss(context_tokens(student(figures, side)), teacher, block=block)
    close(loss, figures[f"loss_context_{side}"])


@pytest.mark.parametrize("side", SIDES)
def test_context_loss__declip_context_from_stored_factors(figures: dict[str, Tensor], side: int) -> None:
    codec = LowRank(rank=24, dtype="fp32")
    maps = F.normalize(figures[f"vfm_feats_{side}"].flatten(2), dim=1).transpose(1, 2)
    factors = [torch.from_numpy(codec.decode(codec.encode(x.numpy())[0])) for x in maps]
    loss = context_loss(context_tokens(student(figures, side)), torch.stack(factors))
    close(loss, figures[f"loss_context_{side}"])
