"""Dense modes of a CLIP's ViT: how its last block is changed to read out its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.attention import Layer, mean_attention
from densecli.models.dense import DenseCLIP, Grid, parse_mode

READS = {"qq": ("q",), "kk": ("k",), "vv": (), "csa": ("q", "k"), "all": ("q", "k")}
"""Which of q and k a DeCLIP mode reads; it always reads v."""
OPTIONS = frozenset({"scale", "rope", "unit"})
"""Options that may be added to a DeCLIP mode; see `DenseTransformer`."""


class DenseTransformer(DenseCLIP):
    """A CLIP with a ViT. The mode says how its last block is changed.

    - `value` and `maskclip` replace attention by its value path and keep residuals and MLP (MaskCLIP,
      CLIPSelf, DenseVLM).
    - `vanilla` keeps the block as it is.
    - DeCLIP's modes leave out residuals, MLP and rotary positions. In `qq`, `kk` and `vv`, q, k or v attends
      to itself; `csa` adds the softmaxes of q and k; `all` takes the softmax of the mean of all three.

    Context features are the q and k that a DeCLIP mode reads: with biases, before positions, heads
    concatenated, without [CLS].

    DeCLIP's released code reads `qq`. Options add what it leaves out, as in `qq+scale+unit`: `scale` divides
    attention logits by sqrt(d), as in the paper; `rope` rotates q and k by the positions of the other blocks,
    if the model has rotary positions; `unit` normalises tokens, as CLIPSelf does before RoIAlign.
    """

    prefix = 1
    """Number of tokens before the patches: one, [CLS]."""
    modes = ("value", "maskclip", "vanilla", *READS)
    options = f"{', '.join(READS)} may be followed by +{', +'.join(sorted(OPTIONS))}."

    def has_mode(self, mode: str) -> bool:
        """See `DenseCLIP.has_mode`."""
        name, options = parse_mode(mode)
        return name in self.modes and (not options or (name in READS and options <= OPTIONS))

    def dense_and_context(self, images: Tensor, mode: str = "value") -> tuple[Tensor, dict[str, Tensor]]:
        """See `DenseCLIP.dense`; context features are "q" and "k", (B, C, h, w), if the mode reads them."""
        self.check_mode(mode)
        return self._read_out(*self._before_last(images), mode)

    def dense_context_image(
        self, images: Tensor, mode: str = "value"
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """See `DenseCLIP.dense_context_image`; all but the last block runs once."""
        if parse_mode(mode)[0] not in DenseTransformer.modes:
            return super().dense_context_image(images, mode)
        self.check_mode(mode)
        x, grid, rope = self._before_last(images)
        whole = self._checkpointed(self._run, self.blocks()[-1], x, rope)
        return *self._read_out(x, grid, rope, mode), self._pool(whole)

    def _before_last(self, images: Tensor) -> tuple[Tensor, Grid, Tensor | None]:
        """(B, 3, H, W) -> (B, 1 + hw, C) tokens before the last block, (h, w) and rotary positions."""
        x, grid = self._embed(images)
        rope = self.rope(grid)
        for block in self.blocks()[:-1]:
            x = self._checkpointed(self._run, block, x, rope)
        return x, grid, rope

    def _read_out(
        self, x: Tensor, grid: Grid, rope: Tensor | None, mode: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What `_before_last` gives -> the pair of `dense_and_context`."""
        mode, options = parse_mode(mode)
        last = self.blocks()[-1]
        context: dict[str, Tensor] = {}
        if mode in READS:
            q, k, v = self._qkv(last, x)
            both = {"q": q, "k": k}
            if "rope" in options and rope is not None:
                q, k = self._rotate(q, rope), self._rotate(k, rope)
            x = self._merge(last, self_correlation(q, k, v, mode, scale="scale" in options))
            context = {
                name: self._to_map(both[name].transpose(1, 2).flatten(2), grid) for name in READS[mode]
            }
        elif mode == "vanilla":
            x = self._checkpointed(self._run, last, x, rope)
        else:
            x = self._checkpointed(self._value_path, last, x)
        dense = self._to_map(self._head(x), grid)
        unit = mode == "value" or "unit" in options
        return (F.normalize(dense.float(), dim=1) if unit else dense), context

    def layers(self, images: Tensor, after: Sequence[int]) -> list[Tensor]:
        """(B, 3, H, W) normalised pixels -> (B, C, h, w) tokens after each of these numbers of blocks."""
        x, grid = self._embed(images)
        rope, found = self.rope(grid), {0: x}
        for number, block in enumerate(self.blocks()[: max(after)], start=1):
            found[number] = x = self._checkpointed(self._run, block, x, rope)
        return [self._to_map(found[number], grid) for number in after]

    def walk(self, images: Tensor) -> Iterator[Layer]:
        """Runs the blocks unchanged on (B, 3, H, W) normalised pixels and yields what each of them does."""
        x, grid = self._embed(images)
        rope = self.rope(grid)
        for block in self.blocks():
            q, k, _ = self._qkv(block, x)
            if rope is not None:
                q, k = self._rotate(q, rope), self._rotate(k, rope)
            x = self._run(block, x, rope)
            yield Layer(self._to_map(x, grid), mean_attention(q, k))

    def value_map(self, x: Tensor, grid: Grid, blocks: nn.ModuleList) -> Tensor:
        """(B, 1 + hw, C) with [CLS] -> (B, D, h, w): the map of mode `value` with these last blocks."""
        rope = self.rope(grid)
        *body, last = blocks
        for block in body:
            x = self._checkpointed(self._run, block, x, rope)
        x = self._checkpointed(self._value_path, last, x)
        return F.normalize(self._to_map(self._head(x), grid).float(), dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        """See `DenseCLIP.encode_image`."""
        x, _, rope = self._before_last(images)
        return self._pool(self._checkpointed(self._run, self.blocks()[-1], x, rope))

    def _pool(self, x: Tensor) -> Tensor:
        """(B, prefix + hw, C) after the last block -> (B, D): the image embedding, that of [CLS]."""
        return self._head(x[:, :1])[:, 0]

    @property
    def width(self) -> int:
        """C, the width of tokens between blocks."""
        raise NotImplementedError

    def _embed(self, images: Tensor) -> tuple[Tensor, Grid]:
        """(B, 3, H, W) -> (B, 1 + hw, C) and (h, w): [CLS] and patches with positions."""
        raise NotImplementedError

    def blocks(self) -> nn.ModuleList:
        raise NotImplementedError

    def names_outside(self, last: int) -> set[str]:
        """See `DenseCLIP.names_outside`."""
        blocks = self.blocks()
        if not 1 <= last <= len(blocks):
            raise DenseCLIError(
                f"{self.arch.name} has {len(blocks)} blocks, not {last}.",
                hint=f"Give --blocks 1 to {len(blocks)}.",
            )
        late = {p for block in blocks[len(blocks) - last :] for p in block.parameters()}
        return {name for name, p in self.named_parameters() if p not in late}

    def _to_map(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, prefix + h*w, C) -> (B, C, h, w)."""
        found: Tensor = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, grid)
        return found

    def rope(self, grid: Grid) -> Tensor | None:
        """The rotary positions of every block, if it has any."""
        return None

    def _rotate(self, x: Tensor, rope: Tensor) -> Tensor:
        """(B, heads, N, d) queries or keys with CLS -> the same, rotated by `rope`."""
        raise NotImplementedError

    def _run(self, block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
        """Runs a block unchanged."""
        raise NotImplementedError

    def _value_path(self, block: Any, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _qkv(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, C) -> three of (B, heads, N, d), without positions."""
        raise NotImplementedError

    def _merge(self, block: Any, x: Tensor) -> Tensor:
        """(B, N, C) concatenated heads -> (B, N, C): the output projection of attention."""
        raise NotImplementedError

    def _head(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, D): the final norm and the projection."""
        raise NotImplementedError


def self_correlation(q: Tensor, k: Tensor, v: Tensor, mode: str, *, scale: bool) -> Tensor:
    """q, k and v (B, heads, N, d) -> (B, N, heads * d); see `DenseTransformer` for the modes."""
    factor = q.shape[-1] ** -0.5 if scale else 1.0
    if mode == "all":
        # The mean of three products is one product of the three side by side.
        qkv = torch.cat([q, k, v], dim=-1)
        mixed = F.scaled_dot_product_attention(qkv, qkv, v, scale=factor / 3)
    elif mode == "csa":
        mixed = F.scaled_dot_product_attention(q, q, v, scale=factor)
        mixed = mixed + F.scaled_dot_product_attention(k, k, v, scale=factor)
    else:
        x = {"qq": q, "kk": k, "vv": v}[mode]
        mixed = F.scaled_dot_product_attention(x, x, v, scale=factor)
    return mixed.transpose(1, 2).flatten(2)
