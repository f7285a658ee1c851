"""Norms of EVA hand on 16 bits within autocast: fewer casts, and the same numbers."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import LayerNorm

from densecli.models.eva import NarrowLayerNorm

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "operations.py"


@pytest.fixture(scope="module")
def operations() -> Any:
    spec = importlib.util.spec_from_file_location("operations_benchmark", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_norms__save_casts(operations) -> None:
    plain, narrow = (operations.measured(norm).counts for norm in (LayerNorm, NarrowLayerNorm))
    # Of the input of q, k and v two casts less, of that of SwiGLU one; each has its own backward pass.
    assert plain["_to_copy"] - narrow["_to_copy"] == 2 * 3
    assert {n: c for n, c in plain.items() if n != "_to_copy"} == {
        n: c for n, c in narrow.items() if n != "_to_copy"
    }


def passes(operations: Any, norm: type[LayerNorm], *, autocast: bool) -> tuple[torch.Tensor, ...]:
    """The output of a small block, and its gradients."""
    torch.manual_seed(0)
    block = operations.block(norm, width=64, heads=2)
    torch.manual_seed(1)
    x = torch.randn(2, 17, 64, dtype=torch.bfloat16 if autocast else torch.float32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), operations.GPUNorms():
        out = block(x)
    return out, *torch.autograd.grad(out.float().square().sum(), [x, *block.parameters()])


def test_norms__change_no_output(operations) -> None:
    (plain, *theirs), (narrow, *ours) = (
        passes(operations, norm, autocast=True) for norm in (LayerNorm, NarrowLayerNorm)
    )
    assert torch.equal(plain, narrow)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 0.02 * b.norm()
    for a, b in zip(
        *(passes(operations, norm, autocast=False) for norm in (LayerNorm, NarrowLayerNorm)), strict=True
    ):
        assert torch.equal(a, b)
