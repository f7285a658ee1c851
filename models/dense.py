"""The dense side of a CLIP image encoder: one embedding per token instead of one per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shards.errors import DenseCLIError

if TYPE_CHECKING:
    from models.architecture import Architecture

Grid = tuple[int, int]


class DenseCLIP(nn.Module):
    """An open_clip model read out per token. `forward` is `dense`, so that DDP can wrap the training call.

    `clip` is the whole open_clip model (its parameters keep their names below `clip.`), `patch_size` the
    stride of the token grid in pixels, `embed_dim` the width D that images and texts share. Any input side
    that is a multiple of the patch will do.
    """

    modes: tuple[str, ...] = ("value", "maskclip")
    _mean: Tensor
    _std: Tensor

    def __init__(self, clip: Any, arch: Architecture, *, patch_size: int) -> None:
        super().__init__()
        self.clip = clip
        self.arch = arch
        self.patch_size = patch_size
        self.embed_dim: int = arch.clip_config()["embed_dim"]
        self.mean = arch.mean
        self.std = arch.std
        self.activation_checkpointing = False
        self.register_buffer("_mean", torch.tensor(arch.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("_std", torch.tensor(arch.std).view(3, 1, 1) * 255, persistent=False)

    @property
    def network(self) -> nn.Module:
        """What is exported: the whole open_clip model."""
        return self.clip

    @property
    def device(self) -> torch.device:
        return self._mean.device

    def input_side(self, canvas: int) -> int:
        """The multiple of the patch nearest to a canvas side in pixels: 518 for patch 14 on 512."""
        return max(1, round(canvas / self.patch_size)) * self.patch_size

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) pixels in 0..255 -> float32 input of the encoder."""
        return (images.float() - self._mean) / self._std

    def prepare(self, canvases: Tensor, *, side: int | None = None, resample: bool = True) -> Tensor:
        """(B, 3, S, S) canvases, pixels in 0..255 -> float32 input of the encoder.

        With `resample` the canvas becomes `input_side(side or S)`, so that boxes normalised to the canvas are
        exact on the token grid. Without, it goes in as it is, the released behaviour: patch 14 on 512 gives
        36 tokens that cover 504 px, and boxes are off by up to 8 px.
        """
        if resample:
            canvases = resample_canvas(canvases, self.input_side(side or canvases.shape[-1]))
        return self.normalize(canvases)

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D), CLIP's image embedding, not unit norm."""
        raise NotImplementedError

    def dense_and_context(self, images: Tensor, mode: str = "value") -> tuple[Tensor, dict[str, Tensor]]:
        """`dense`, and by name DeCLIP's context features of the same pass, each (B, C, h, w)."""
        raise NotImplementedError

    def frozen_names(self, mode: str = "value") -> set[str]:
        """Names of the parameters that distillation leaves alone, and of those that `mode` never reads.

        The former are the text tower (all that is not `clip.visual`), the patch embedding, CLS, positions,
        the final norm and the projection, as in CLIPSelf, DeCLIP and DenseVLM. The latter get no gradient,
        which DDP would refuse.
        """
        frozen = self._frozen_parts(parse_mode(mode)[0])
        return {
            name
            for name, _ in self.named_parameters()
            if not name.startswith("clip.visual.")
            or any(name == part or name.startswith(part + ".") for part in frozen)
        }

    def names_outside(self, last: int) -> set[str]:
        """Names of all parameters but those of the `last` blocks. Raises DenseCLIError at too many."""
        raise DenseCLIError(
            f"{self.arch.name} has no transformer blocks to choose from.", hint="Leave --blocks out."
        )

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        """Full names of frozen parameters or modules of the image tower."""
        raise NotImplementedError

    def dense(self, images: Tensor, mode: str = "value") -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D, h, w) in the space of the text embeddings.

        `value` is float32 of unit norm per token, `maskclip` the same before normalisation. A transformer
        also has DeCLIP's readings of the last block, with options: see `DenseTransformer`.
        """
        return self.dense_and_context(images, mode)[0]

    def forward(
        self, images: Tensor, mode: str = "value", *, context: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """`dense`, or with `context` `dense_and_context`."""
        dense, features = self.dense_and_context(images, mode)
        return (dense, features) if context else dense

    def tokenize(self, texts: list[str]) -> Tensor:
        """Texts -> (N, context length) token ids."""
        return self._tokenizer(texts)

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        return self.arch.tokenizer()

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, context length) token ids -> (N, D), not unit norm, each read at its last token.

        As open_clip's, but no longer than the longest text: attention is causal, so that what comes after a
        text never reaches it, and prompts are short (a quarter of the context).
        """
        text: Any = getattr(self.clip, "text", self.clip)
        last = tokens.argmax(dim=1)
        length = int(last.max()) + 1
        x = text.token_embedding(tokens[:, :length]) + text.positional_embedding[:length]
        x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:length, :length]))
        x = x[torch.arange(len(x), device=x.device), last]
        projection = text.text_projection
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection

    def _checkpointed(self, function: Any, *args: Any) -> Any:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    def has_mode(self, mode: str) -> bool:
        """Whether `dense` reads out in this mode, with its options."""
        name, options = parse_mode(mode)
        return name in self.modes and (not options or (name in READS and options <= OPTIONS))

    def _check_mode(self, mode: str) -> tuple[str, frozenset[str]]:
        """The name and the options of a mode that this model has."""
        if not self.has_mode(mode):
            reads = ", ".join(name for name in self.modes if name in READS)
            options = f"; after {reads} also +{', +'.join(sorted(OPTIONS))}" if reads else ""
            raise DenseCLIError(
                f"{self.arch.name} has no dense mode {mode!r}.",
                hint=f"Choose one of {', '.join(self.modes)}{options}.",
            )
        return parse_mode(mode)


def parse_mode(mode: str) -> tuple[str, frozenset[str]]:
    """ "qq+scale" -> "qq" and {"scale"}."""
    name, *options = mode.split("+")
    return name, frozenset(options)


READS = {"qq": ("q",), "kk": ("k",), "vv": (), "csa": ("q", "k"), "all": ("q", "k")}
"""Which of q and k a DeCLIP mode reads; v it always does."""
OPTIONS = frozenset({"scale", "rope", "unit"})
"""What may be added to a DeCLIP mode; see `DenseTransformer`."""


class DenseTransformer(DenseCLIP):
    """What a ViT's last block becomes when its tokens are read out.

    `value` and `maskclip`: the block with attention replaced by its value path, residuals and FFN kept
    (MaskCLIP, CLIPSelf, DenseVLM). `vanilla`: the block as it is. The others are DeCLIP's, without residual,
    FFN or rotary positions: attention of q, k or v with itself (`qq`, `kk`, `vv`), the sum of the q and k
    softmaxes (`csa`), the softmax of the mean of all three (`all`). Context features are the q and k that
    such a mode reads, with their biases, before positions, heads concatenated, without CLS.

    DeCLIP's released code reads `qq`. Options name what it leaves out, as in `qq+scale+unit`: `scale` divides
    attention logits by sqrt(d), as the paper prints them; `rope` rotates q and k by the positions that the
    other blocks use, where the model has such; `unit` normalises tokens, as CLIPSelf does before RoIAlign.
    """

    modes = ("value", "maskclip", "vanilla", *READS)

    def dense_and_context(self, images: Tensor, mode: str = "value") -> tuple[Tensor, dict[str, Tensor]]:
        """See `DenseCLIP.dense`; context has "q" and "k", (B, C, h, w) each, where the mode reads them."""
        mode, options = self._check_mode(mode)
        x, grid = self._embed(images)
        rope = self.rope(grid)
        *body, last = self.blocks()
        for block in body:
            x = self._checkpointed(self._run, block, x, rope)
        context: dict[str, Tensor] = {}
        if mode in READS:
            q, k, v = self._qkv(last, x)
            both = {"q": q, "k": k}
            if "rope" in options and rope is not None:
                q, k = self._rotate(q, rope), self._rotate(k, rope)
            x = self._merge(last, self_correlation(q, k, v, mode, scale="scale" in options))
            context = {name: _to_map(both[name].transpose(1, 2).flatten(2), grid) for name in READS[mode]}
        elif mode == "vanilla":
            x = self._checkpointed(self._run, last, x, rope)
        else:
            x = self._checkpointed(self._value_path, last, x)
        dense = _to_map(self._head(x), grid)
        unit = mode == "value" or "unit" in options
        return (F.normalize(dense.float(), dim=1) if unit else dense), context

    def layers(self, images: Tensor, after: Sequence[int]) -> list[Tensor]:
        """(B, 3, H, W) normalised pixels -> tokens after each of those numbers of blocks, (B, C, h, w)."""
        x, grid = self._embed(images)
        rope, found = self.rope(grid), {0: x}
        for number, block in enumerate(self.blocks()[: max(after)], start=1):
            found[number] = x = self._checkpointed(self._run, block, x, rope)
        return [_to_map(found[number], grid) for number in after]

    def value_map(self, x: Tensor, grid: Grid, blocks: nn.ModuleList) -> Tensor:
        """(B, 1 + hw, C) with CLS -> (B, D, h, w): what mode `value` makes of it with these last blocks."""
        rope = self.rope(grid)
        *body, last = blocks
        for block in body:
            x = self._checkpointed(self._run, block, x, rope)
        x = self._checkpointed(self._value_path, last, x)
        return F.normalize(_to_map(self._head(x), grid).float(), dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        """See `DenseCLIP.encode_image`."""
        x, grid = self._embed(images)
        rope = self.rope(grid)
        for block in self.blocks():
            x = self._checkpointed(self._run, block, x, rope)
        return self._head(x[:, :1])[:, 0]

    @property
    def width(self) -> int:
        """C, the numbers of a token between blocks."""
        raise NotImplementedError

    def _embed(self, images: Tensor) -> tuple[Tensor, Grid]:
        """(B, 3, H, W) -> (B, 1 + hw, C) and (h, w): CLS, patches and positions, as the blocks get them."""
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

    def rope(self, grid: Grid) -> Tensor | None:
        """The rotary positions that every block gets, if any."""
        return None

    def _rotate(self, x: Tensor, rope: Tensor) -> Tensor:
        """(B, heads, N, d) queries or keys with CLS -> the same, rotated by `rope`."""
        raise NotImplementedError

    def _run(self, block: Any, x: Tensor, rope: Tensor | None) -> Tensor:
        """A block as CLIP has it."""
        raise NotImplementedError

    def _value_path(self, block: Any, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _qkv(self, block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, C) -> three of (B, heads, N, d), without positions."""
        raise NotImplementedError

    def _merge(self, block: Any, x: Tensor) -> Tensor:
        """(B, N, C) heads concatenated -> (B, N, C): the attention's own output projection."""
        raise NotImplementedError

    def _head(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, D): the final norm and the projection."""
        raise NotImplementedError


def self_correlation(q: Tensor, k: Tensor, v: Tensor, mode: str, *, scale: bool) -> Tensor:
    """Three of (B, heads, N, d) -> (B, N, heads * d); see `DenseTransformer` for each mode of `READS`."""
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


def resize_positions(positions: Tensor, grid: Grid) -> Tensor:
    """(1 + n*n, C) learned positions, CLS first -> (1 + h*w, C): bicubic, not antialiased.

    A library default with antialiasing misses the released numbers by 3e-3 at twice the native size.
    """
    patches = positions[1:]
    resized = resize_grid(patches, grid)
    return positions if resized is patches else torch.cat([positions[:1], resized])


def resize_grid(positions: Tensor, grid: Grid) -> Tensor:
    """(n*n, C) learned positions of patches -> (h*w, C), as `resize_positions`."""
    side = round(positions.shape[0] ** 0.5)
    if grid == (side, side):
        return positions
    old = positions.float().T.reshape(1, -1, side, side)
    new = F.interpolate(old, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return new.flatten(2)[0].T.to(positions.dtype)


def resample_canvas(images: Tensor, side: int) -> Tensor:
    """(B, 3, S, S) pixels in 0..255 -> float32 (B, 3, side, side), bicubic."""
    images = images.float()
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(
        images, size=(side, side), mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 255)


def _to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, 1 + h*w, C) with CLS -> (B, C, h, w)."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)
