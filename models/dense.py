"""The dense side of a CLIP image encoder: one embedding per token instead of one per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from densecli.core.errors import DenseCLIError

if TYPE_CHECKING:
    from densecli.models.architecture import Architecture

Grid = tuple[int, int]


class DenseCLIP(nn.Module):
    """An open_clip model read out per token. `forward` is `dense`, so that DDP can wrap the training call.

    `clip` is the whole open_clip model (its parameters keep their names below `clip.`), `patch_size` the
    stride of the token grid in pixels, `embed_dim` the width D that images and texts share. Any input side
    that is a multiple of the patch will do.
    """

    modes: tuple[str, ...] = ("value", "maskclip")
    options = ""  # what may be added to them, in words
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
        found: nn.Module = self.clip
        return found

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
        also has DeCLIP's readings of the last block, with options: see `models.transformer`.
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
        return self.arch.make_tokenizer()

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, context length) token ids -> (N, D), not unit norm, each read at its last token.

        As open_clip's. Where attention is causal, tokens are cut after the longest text: what comes after a
        text never reaches it, and prompts are short (a quarter of the context).
        """
        text: Any = getattr(self.clip, "text", self.clip)
        pooling = text.text_pool_type if text is self.clip else text.pool_type
        if text.attn_mask is None or pooling != "argmax":
            embedded: Tensor = self.clip.encode_text(tokens)
            return embedded
        last = tokens.argmax(dim=1)
        length = int(last.max()) + 1
        x = text.token_embedding(tokens[:, :length]) + text.positional_embedding[:length]
        x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:length, :length]))
        x = x[torch.arange(len(x), device=x.device), last]
        projection = text.text_projection
        found: Tensor = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return found

    def _checkpointed(self, function: Any, *args: Any) -> Any:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    def has_mode(self, mode: str) -> bool:
        """Whether `dense` reads out in this mode, with its options."""
        return mode in self.modes

    def _check_mode(self, mode: str) -> tuple[str, frozenset[str]]:
        """The name and the options of a mode that this model has."""
        if not self.has_mode(mode):
            raise DenseCLIError(
                f"{self.arch.name} has no dense mode {mode!r}.",
                hint=f"Choose one of {', '.join(self.modes)}{self.options}.",
            )
        return parse_mode(mode)


def parse_mode(mode: str) -> tuple[str, frozenset[str]]:
    """ "qq+scale" -> "qq" and {"scale"}."""
    name, *options = mode.split("+")
    return name, frozenset(options)


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
