"""A P-VLM made of a vision foundation model and a text tower, in the manner of dino.txt.

Our reading of dino.txt (Jose et al., CVPR 2025) by its abstract: as in LiT, the image encoder is frozen and
a text tower is trained beside it on photos and captions, here with two blocks on top of the encoder. The
image embedding is the [CLS] token beside the mean of the patch tokens. A patch is compared with the half of a
text's embedding that was trained with that mean, so its own other half is 0.

Train it on the generated world, a few minutes on a CPU, and compare its labels with another P-VLM's:

    python examples/vfm_with_text.py scenes-vfm-text.safetensors
    densecli build-shards --plugin examples/vfm_with_text.py --dataset scenes --teacher scenes-pvlm \\
        --teacher scenes-vfm-text --weights scenes-vfm-text=scenes-vfm-text.safetensors
    densecli verify --teacher scenes-pvlm --against scenes-vfm-text
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from densecli.models.architecture import Architecture
from densecli.models.checkpoints import load_model
from densecli.models.dense import DenseCLIP, Grid
from densecli.models.registry import FAMILIES, MODELS
from densecli.models.vfm import VFM
from densecli.models.vfm_checkpoints import load_vfm
from densecli.models.vfms import find_vfm
from densecli.models.weights import find_weights
from densecli.scenes.contrastive import ContrastiveConfig, train_contrastive
from densecli.scenes.pretrain import render_pairs
from densecli.scenes.tokenizer import WordTokenizer
from densecli.scenes.vocabulary import SCENES_CONFIGS

NAME, TRUNK = "scenes-vfm-text", "scenes-vfm"
HEADS, BLOCKS = 4, 2


class Tower(nn.Module):
    """A frozen vision foundation model with two more blocks and a projection to half the width of a text."""

    def __init__(self, trunk: VFM, half: int) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False)
        width = trunk.net.embed_dim
        self.blocks = nn.Sequential(*(Block(width, HEADS) for _ in range(BLOCKS)))
        self.norm, self.proj = nn.LayerNorm(width), nn.Linear(width, half, bias=False)

    def tokens(self, images: Tensor) -> tuple[Tensor, Grid]:
        """(B, 3, H, W) normalised pixels -> (B, 1 + h * w, D / 2), [CLS] first, and h and w."""
        with torch.no_grad():
            x, grid = self.trunk.embed(images)
            x = self.trunk.net.norm(self.trunk.net.blocks(x))
        return self.proj(self.norm(self.blocks(x))), grid

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D) image embeddings."""
        x, _ = self.tokens(images)
        return torch.cat([x[:, 0], x[:, 1:].mean(1)], dim=1)


class DenseTower(DenseCLIP):
    """Reads the patch tokens of a `Tower` in the space of the text embeddings."""

    modes = ("value",)
    clip: Any

    def __init__(self, clip: Any, arch: Architecture, *, trunk: str) -> None:
        vfm = VFM(find_vfm(trunk))
        clip.visual = Tower(vfm, arch.clip_config()["embed_dim"] // 2)
        super().__init__(clip, arch, patch_size=vfm.arch.patch)

    def encode_image(self, images: Tensor) -> Tensor:
        found: Tensor = self.clip.visual(images)
        return found

    def dense_and_context(self, images: Tensor, mode: str = "value") -> tuple[Tensor, dict[str, Tensor]]:
        x, grid = self.clip.visual.tokens(images)
        x = F.pad(F.normalize(x[:, 1:].float(), dim=2), (x.shape[2], 0))
        return x.transpose(1, 2).unflatten(2, grid), {}

    def _frozen_parts(self, mode: str) -> Sequence[str]:
        return ["clip.visual"]


FAMILIES.add(
    "scenes-vfm-text", partial(DenseTower, trunk=TRUNK), help="A vision foundation model with texts."
)
MODELS.add(
    NAME,
    Architecture(
        name=NAME,
        family="scenes-vfm-text",
        # The image tower of this configuration is replaced.
        config=SCENES_CONFIGS["scenes-s"],
        tokenizer=WordTokenizer,
        templates="plain",
        mean=find_vfm(TRUNK).mean,
        std=find_vfm(TRUNK).std,
        canvas=find_vfm(TRUNK).canvas,
    ),
    help="The generated world's vision foundation model, with a text tower.",
)


def train(file: Path, *, photos: int, pairs: int) -> list[float]:
    """Trains the blocks, the projection and the text tower on generated captions, and writes all weights."""
    model, _ = load_model(NAME, "random:0")
    model.clip.visual.trunk.load_state_dict(load_vfm(TRUNK, find_weights(TRUNK)).state_dict())
    images, captions = render_pairs(0, "pretrain", photos)
    losses = train_contrastive(model, images, captions, config=ContrastiveConfig(pairs=pairs))
    save_file({name: t.contiguous() for name, t in model.clip.state_dict().items()}, file)
    return losses


if __name__ == "__main__":
    losses = train(Path(sys.argv[1]), photos=8_000, pairs=48_000)
    print(f"loss {losses[0]:.2f} -> {sum(losses[-50:]) / 50:.2f}")
