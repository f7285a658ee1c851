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
from densecli.core.registry import suggestion

if TYPE_CHECKING:
    from densecli.models.architecture import Architecture

Grid = tuple[int, int]


class DenseCLIP(nn.Module):
    """An open_clip model read out per token. `forward` is `dense`, so that DDP wraps the training call.

    Inputs may have any side that is a multiple of the patch.

    Attributes:
        clip: The whole open_clip model; its parameters keep their names below `clip.`.
        arch: Its architecture.
        patch_size: Stride of the token grid in pixels.
        embed_dim: Width D of image and text embeddings.
        modes: Dense modes; see `dense`.
        options: A sentence about the options that may be added to a mode; empty if there are none.
        own_weights: Names in the state dict of `clip` that only this class knows. A published file has none
            of them; they then keep their initial values.
        activation_checkpointing: Whether activations are computed again in the backward pass, to save memory.
    """

    modes: tuple[str, ...] = ("value", "maskclip")
    options = ""
    own_weights: frozenset[str] = frozenset()
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
        """The module that is exported: the whole open_clip model."""
        found: nn.Module = self.clip
        return found

    @property
    def device(self) -> torch.device:
        return self._mean.device

    def input_side(self, canvas: int) -> int:
        """The multiple of the patch that is nearest to a canvas side in pixels: 518 for patch 14 on 512."""
        return max(1, round(canvas / self.patch_size)) * self.patch_size

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) pixels in 0..255 -> float32 input of the encoder."""
        return (images.float() - self._mean) / self._std

    def prepare(self, canvases: Tensor, *, side: int | None = None, resample: bool = True) -> Tensor:
        """Makes canvases into input of the encoder.

        Args:
            canvases: (B, 3, S, S) pixels in 0..255.
            side: Side in pixels of the canvas as the student sees it, by default S.
            resample: Whether canvases are resized to `input_side(side)`, so that boxes normalised to the
                canvas are exact on the token grid. The released code does not: patch 14 on 512 gives 36
                tokens that cover 504 pixels, and boxes are off by up to 8 pixels.

        Returns:
            (B, 3, s, s) float32, normalised.
        """
        if resample:
            canvases = resample_canvas(canvases, self.input_side(side or canvases.shape[-1]))
        return self.normalize(canvases)

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D): CLIP's image embeddings, not of unit norm."""
        raise NotImplementedError

    def dense_and_context(self, images: Tensor, mode: str = "value") -> tuple[Tensor, dict[str, Tensor]]:
        """Returns `dense`, and DeCLIP's context features of the same pass by name, each (B, C, h, w)."""
        raise NotImplementedError

    def frozen_names(self, mode: str = "value") -> set[str]:
        """Names of the parameters that distillation does not train, and of those that `mode` never reads.

        The former are the text tower (everything outside `clip.visual`), the patch embedding, [CLS],
        positions, the final norm and the projection, as in CLIPSelf, DeCLIP and DenseVLM. The latter get no
        gradient, which DDP would refuse.
        """
        frozen = self._frozen_parts(parse_mode(mode)[0])
        return {
            name
            for name, _ in self.named_parameters()
            if not name.startswith("clip.visual.")
            or any(name == part or name.startswith(part + ".") for part in frozen)
        }

    def names_outside(self, last: int) -> set[str]:
        """Names of all parameters outside the `last` blocks. Raises DenseCLIError if there are fewer."""
        raise DenseCLIError(
            f"{self.arch.name} has no transformer blocks to choose from.", hint="Leave --blocks out."
        )

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        """Full names of frozen parameters or modules of the image tower."""
        raise NotImplementedError

    def dense(self, images: Tensor, mode: str = "value") -> Tensor:
        """Computes the dense map, in the space of the text embeddings.

        Args:
            images: (B, 3, H, W) normalised pixels.
            mode: `value` gives float32 tokens of unit norm, `maskclip` the same before normalisation.
                Transformers also have DeCLIP's modes, with options; see `models.transformer`.

        Returns:
            (B, D, h, w).
        """
        return self.dense_and_context(images, mode)[0]

    def dense_context_image(
        self, images: Tensor, mode: str = "value"
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Returns the pair of `dense_and_context`, and `encode_image`."""
        return *self.dense_and_context(images, mode), self.encode_image(images)

    def forward(
        self, images: Tensor, mode: str = "value", *, context: bool = False, image: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]] | tuple[Tensor, dict[str, Tensor], Tensor]:
        """Returns `dense`, with `context` also context features, with `image` also image embeddings.

        See `dense_and_context` and `dense_context_image`.
        """
        if image:
            return self.dense_context_image(images, mode)
        dense, features = self.dense_and_context(images, mode)
        return (dense, features) if context else dense

    def tokenize(self, texts: list[str]) -> Tensor:
        """Texts -> (N, context length) token ids."""
        return self._tokenizer(texts)

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        return self.arch.make_tokenizer()

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, context length) token ids -> (N, D), not of unit norm, each read at its last token.

        The result is open_clip's. If attention is causal, tokens are cut after the longest text: later tokens
        never influence it, and prompts fill a quarter of the context.
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
            # The network draws no random numbers.
            return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
        return function(*args)

    def has_mode(self, mode: str) -> bool:
        """Whether `dense` has this mode, with its options."""
        return mode in self.modes

    def check_mode(self, mode: str) -> tuple[str, frozenset[str]]:
        """Splits a mode into its name and options. Raises DenseCLIError if this model does not have it."""
        name, options = parse_mode(mode)
        if not self.has_mode(mode):
            known = f"Choose one of {', '.join(self.modes)}."
            hint = known if name in self.modes else suggestion(name, self.modes)
            raise DenseCLIError(
                f"{self.arch.name} has no dense mode {mode!r}.", hint=f"{hint} {self.options}".strip()
            )
        return name, options


def parse_mode(mode: str) -> tuple[str, frozenset[str]]:
    """Splits a mode into its name and options: "qq+scale" is "qq" with {"scale"}."""
    name, *options = mode.split("+")
    return name, frozenset(options)


def resize_positions(positions: Tensor, grid: Grid) -> Tensor:
    """(1 + n*n, C) learned positions, [CLS] first -> (1 + h*w, C), bicubic without antialiasing.

    With antialiasing, a library default, features differ from the released ones by 3e-3 at twice the native
    size.
    """
    patches = positions[1:]
    resized = resize_grid(patches, grid)
    return positions if resized is patches else torch.cat([positions[:1], resized])


def resize_grid(positions: Tensor, grid: Grid) -> Tensor:
    """(n*n, C) learned positions of patches -> (h*w, C); see `resize_positions`."""
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
