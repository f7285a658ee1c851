"""Students: networks that can be trained, a CLIP or a vision foundation model (which has no text tower)."""

from collections.abc import Iterator, Sequence
from typing import TypeGuard

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.attention import Layer, mean_attention, timm_qkv
from densecli.models.checkpoints import WeightsInfo, load_model, values_sha256
from densecli.models.dense import DenseCLIP, Grid
from densecli.models.registry import build, resolve
from densecli.models.transformer import DenseTransformer
from densecli.models.vfm import VFM, to_map
from densecli.models.vfm_checkpoints import load_vfm
from densecli.models.vfms import find_vfm, is_vfm
from densecli.models.weights import located, random_seed, weights_sha256


class DenseVFM(nn.Module):
    """A VFM as a student: the part of `DenseCLIP` that training needs, with `value` as its only mode."""

    def __init__(self, vfm: VFM) -> None:
        super().__init__()
        self.vfm = vfm
        self.arch = vfm.arch
        self.patch_size = vfm.arch.patch

    @property
    def network(self) -> nn.Module:
        """The module that is exported: timm's network."""
        found: nn.Module = self.vfm.net
        return found

    @property
    def activation_checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass, to save memory."""
        found: bool = self.vfm.net.grad_checkpointing
        return found

    @activation_checkpointing.setter
    def activation_checkpointing(self, on: bool) -> None:
        self.vfm.net.set_grad_checkpointing(on)

    def prepare(self, canvases: Tensor, *, side: int | None = None) -> Tensor:
        """(B, 3, S, S) canvases, pixels in 0..255 -> (B, 3, s, s) float32, normalised.

        s is the multiple of the patch that is nearest to `side`, by default S.
        """
        return self.vfm.prepare(canvases, self.patch_size, side=side)

    def input_side(self, canvas: int) -> int:
        """See `DenseCLIP.input_side`."""
        return self.arch.input_side(canvas, self.patch_size)

    def normalize(self, images: Tensor) -> Tensor:
        """See `VFM.normalize`."""
        return self.vfm.normalize(images)

    @property
    def native_side(self) -> int:
        """Side in pixels of a crop that it sees: the patch's multiple nearest to 224, or less where the
        network is of smaller pictures."""
        native: int = self.vfm.net.patch_embed.img_size[0]
        return min(native, max(1, round(224 / self.patch_size)) * self.patch_size)

    @property
    def width(self) -> int:
        """C, the numbers of a token between blocks."""
        found: int = self.vfm.net.embed_dim
        return found

    @property
    def embed_dim(self) -> int:
        """Numbers of a token of the dense map."""
        return self.width

    def blocks(self) -> nn.ModuleList:
        """The blocks of a ViT."""
        found = self.vfm.net.blocks
        return found if isinstance(found, nn.ModuleList) else nn.ModuleList(found)

    def layers(self, images: Tensor, after: Sequence[int]) -> list[Tensor]:
        """See `DenseTransformer.layers`; of a network for which `VFM.has_cls`."""
        x, grid = self.vfm.embed(images)
        found = {0: x}
        for number, block in enumerate(self.blocks()[: max(after)], start=1):
            found[number] = x = block(x)
        return [to_map(found[number][:, self.prefix :], grid) for number in after]

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches: [CLS] and registers."""
        found: int = self.vfm.net.num_prefix_tokens
        return found

    def walk(self, images: Tensor) -> Iterator[Layer]:
        """See `DenseTransformer.walk`; of a network for which `has_layers`."""
        x, grid = self.vfm.embed(images)
        for block in self.blocks():
            q, k, _ = timm_qkv(block, x)
            x = block(x)
            yield Layer(to_map(x[:, self.prefix :], grid), mean_attention(q, k))

    def value_map(self, x: Tensor, grid: Grid, blocks: nn.ModuleList) -> Tensor:
        """(B, 1 + hw, C) with [CLS] -> (B, C, h, w), unit norm: these blocks and the final norm."""
        for block in blocks:
            x = block(x)
        return F.normalize(to_map(self.vfm.net.norm(x)[:, 1:], grid).float(), dim=1)

    def dense(self, images: Tensor, mode: str = "value") -> Tensor:
        """See `forward`."""
        found = self(images, mode)
        assert isinstance(found, Tensor)
        return found

    def has_mode(self, mode: str) -> bool:
        """See `DenseCLIP.has_mode`."""
        return mode == "value"

    def check_mode(self, mode: str) -> None:
        """See `DenseCLIP.check_mode`."""
        if not self.has_mode(mode):
            raise DenseCLIError(f"{self.arch.name} has no dense mode {mode!r}.", hint="Leave --mode out.")

    def frozen_names(self, mode: str = "value") -> set[str]:
        """Names of frozen parameters: patch embedding, [CLS], registers, positions, final norm, and all that
        are never read."""
        parts = ("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm.", *self.vfm.unread())
        frozen = tuple(f"vfm.net.{part}" for part in parts)
        return {name for name, _ in self.named_parameters() if name.startswith(frozen)}

    def names_outside(self, last: int) -> set[str]:
        """See `DenseCLIP.names_outside`."""
        raise DenseCLIError(
            f"The blocks of {self.vfm.arch.name} can only be trained all together.",
            hint="Leave --blocks out.",
        )

    def forward(
        self, images: Tensor, mode: str = "value", *, context: bool = False
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """(B, 3, H, W) normalised pixels -> (B, C, h, w), unit norm per token.

        With `context`, returns {} too: a VFM has no context features.
        """
        self.check_mode(mode)
        tokens = self.vfm(images)
        return (tokens, {}) if context else tokens


Student = DenseCLIP | DenseVFM


def has_layers(model: Student) -> TypeGuard[DenseTransformer | DenseVFM]:
    """Whether `walk` can run the model: every CLIP's ViT, and plain ViTs of timm."""
    if isinstance(model, DenseVFM):
        return model.vfm.has_cls and all(isinstance(block, Block) for block in model.blocks())
    return isinstance(model, DenseTransformer)


def load_student(
    name: str, weights: str | None = None, device: str | torch.device = "cpu"
) -> tuple[Student, WeightsInfo]:
    """Loads a CLIP or a VFM with its weights, in eval mode; see `load_model`."""
    if not is_vfm(name):
        return load_model(name, weights, device)
    source = located(name, weights)
    model = DenseVFM(load_vfm(name, source, device))
    random = random_seed(source) is not None
    sha256 = values_sha256(model.network) if random else weights_sha256(source)
    return model, WeightsInfo(source=source, sha256=sha256, random=random)


def patch_of(name: str) -> int:
    """Stride of the token grid of a student, in pixels."""
    if is_vfm(name):
        return find_vfm(name).patch
    with torch.device("meta"):
        return build(resolve(name)).patch_size
