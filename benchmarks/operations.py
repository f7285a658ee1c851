"""Operations of a block of EVA02-B/16 in a training step without compilation, and the bytes that they move.

    python benchmarks/operations.py

A forward and a backward pass of one block at 512 px, batch 48, under bf16 autocast, on tensors without
values: nothing is computed. They are on the CPU, with the one rule of a GPU's autocast that differs: layer
norms compute in float32. Views are not counted, because they move nothing. `plain` is timm's block; `narrow
norms` hands on what a norm computes in 16 bits, as `models/eva.py` does; `fused` also multiplies by q, k and
v at once.
"""

import argparse
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm  # type: ignore[attr-defined]
from timm.models.eva import EvaBlock
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from densecli.core.tables import table
from densecli.models.eva import NarrowLayerNorm

WIDTH, HEADS, TOKENS, BATCH = 768, 12, 32 * 32 + 1, 48


class Operations(TorchDispatchMode):
    """Counts operations by name, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.moved = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        read, made = (
            {id(t.untyped_storage()): t.nbytes for t in tree_leaves(x) if isinstance(t, Tensor)}
            for x in ((args, kwargs), result)
        )
        if made.keys() - read.keys():  # no view
            self.counts[function.overloadpacket.__name__] += 1
            self.moved += sum((read | made).values())
        return result


class GPUNorms(TorchFunctionMode):
    """Layer norms as autocast computes them on a GPU: in float32, whatever they are given."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.layer_norm:
            args = (args[0].float(), *args[1:])
        return function(*args, **(kwargs or {}))


class FusedQKV(nn.Module):
    """Attention of a timm EvaBlock with its three weights side by side."""

    def __init__(self, attn: Any) -> None:
        super().__init__()
        self.attn = attn

    def forward(self, x: Tensor, rope: Tensor | None = None, **_: Any) -> Tensor:
        attn = self.attn
        layers = (attn.q_proj, attn.k_proj, attn.v_proj)
        none = torch.zeros_like(attn.q_proj.bias)
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([none if layer.bias is None else layer.bias for layer in layers])
        q, k, v = F.linear(x, weight, bias).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = attn.proj(attn.norm(x.transpose(1, 2).flatten(2)))
        return out


def block(norm: type[nn.Module], *, fused: bool = False, width: int = WIDTH, heads: int = HEADS) -> nn.Module:
    """A block, without the rotary positions, which are the same for all."""
    made = EvaBlock(
        width,
        heads,
        mlp_ratio=4 * 2 / 3,
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        scale_attn_inner=True,
        norm_layer=norm,
    )
    if fused:
        made.attn = FusedQKV(made.attn)  # type: ignore[assignment]
    return made


def measured(norm: type[nn.Module], *, fused: bool = False) -> Operations:
    """What a forward and a backward pass of a block do."""
    found = Operations()
    with FakeTensorMode(), found:
        layer = block(norm, fused=fused)
        x = torch.empty(BATCH, TOKENS, WIDTH, dtype=torch.bfloat16, requires_grad=True)
        found.counts.clear()
        found.moved = 0
        with torch.autocast("cpu", torch.bfloat16), GPUNorms():
            out = layer(x)
        out.backward(torch.empty_like(out))
        found.counts["empty_like"] = 0
    return found


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    cases = {
        "plain": measured(LayerNorm),
        "narrow norms": measured(NarrowLayerNorm),
        "fused": measured(NarrowLayerNorm, fused=True),
    }
    rows = [["", "operations", "casts", "matrix products", "GB moved"]]
    for name, found in cases.items():
        counts = found.counts
        products = sum(n for operation, n in counts.items() if operation in ("mm", "addmm", "bmm"))
        figures = (counts.total(), counts["_to_copy"], products)
        rows.append([name, *map(str, figures), f"{found.moved / 1e9:.2f}"])
    print(table(rows))


if __name__ == "__main__":
    main()
