"""R-SC's Refiner: a copy of a CLIP's last blocks, trained to see a region of an image as CLIP sees its crop.

From Qiu et al., Refining CLIP's Spatial Awareness (ICLR 2025). The CLIP itself stays as it is. The tokens
that enter its last blocks still keep regions apart. The copied blocks run on the tokens of one region at a
time, so nothing outside the region can be mixed in.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import safe_open
from torch import Tensor, nn

from densecli.core.documents import check, parse
from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import (
    WeightsInfo,
    load_model,
    load_strictly,
    random_seed,
    seeded,
)
from densecli.models.dense import DenseCLIP
from densecli.models.pooling import region_pool, region_tokens
from densecli.models.state_dict import read_state_dict
from densecli.models.transformer import DenseTransformer

METADATA = "refiner"
"""Key in the metadata of a Refiner's file: JSON with `clip` (sha256 of the CLIP's weights) and the fields of
RefinerShape."""


@dataclass(frozen=True, kw_only=True)
class RefinerShape:
    """The size of a Refiner.

    Attributes:
        depth: Number of the CLIP's last blocks that are copied.
        layers: Two numbers of blocks; the tokens after these are mixed into those that enter the copies.
        hidden: Width of the MLP that makes a region's [CLS] token.
    """

    depth: int
    layers: tuple[int, int]
    hidden: int

    @classmethod
    def of(cls, clip: DenseTransformer, depth: int | None = None) -> "RefinerShape":
        """The paper's shape for ViT-B and ViT-L; else half of the blocks, and layers in proportion to B.

        Args:
            clip: The CLIP of the Refiner.
            depth: Another depth.

        Raises:
            DenseCLIError: The CLIP has fewer blocks.
        """
        blocks = len(clip.blocks())
        published = {"base": (4, (4, 7)), "large": (6, (9, 14))}
        in_proportion = (blocks // 2, (round(blocks * 4 / 12), round(blocks * 7 / 12)))
        default_depth, layers = published.get(clip.arch.size, in_proportion)
        depth = depth or default_depth
        if depth > blocks:
            raise DenseCLIError(
                f"{clip.arch.name} has {blocks} blocks, not {depth}.", hint=f"Give --depth 1 to {blocks}."
            )
        return cls(depth=depth, layers=layers, hidden=min(4096, round(clip.width * 4096 / 768)))


class Refiner(nn.Module):
    """A Refiner around a frozen CLIP. Its own parts are everything that is not below `clip.`.

    Before training it computes what the CLIP's blocks compute, except for a region's [CLS] token.
    """

    def __init__(self, clip: DenseTransformer, shape: RefinerShape | None = None) -> None:
        """Initialises the MLP from torch's current random generator, and the mixing layer with zeros."""
        super().__init__()
        self.clip = clip
        self.shape = shape = shape or RefinerShape.of(clip)
        self.mix = nn.Linear(2 * clip.width, clip.width)
        self.region_cls = nn.Sequential(
            nn.Linear(clip.width, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, clip.width)
        )
        self.blocks = copy.deepcopy(clip.blocks()[-shape.depth :])
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def frozen_names(self) -> set[str]:
        """Names of the CLIP's parameters, and of those that the last copied block never reads."""
        of_clip = dict(self.clip.named_parameters())
        frozen = {of_clip[name] for name in self.clip.frozen_names("value")}
        unread = {name for name, p in self.clip.blocks()[-1].named_parameters() if p in frozen}
        last = len(self.blocks) - 1
        return {f"clip.{name}" for name in of_clip} | {f"blocks.{last}.{name}" for name in unread}

    def own_state(self) -> dict[str, Tensor]:
        """The state dict without the CLIP's."""
        return {name: t for name, t in self.state_dict().items() if not name.startswith("clip.")}

    def forward(self, images: Tensor, boxes: Tensor, batch_index: Tensor, side: int) -> Tensor:
        """(B, 3, H, W) normalised pixels, and boxes as in `refine` -> the result of `refine`."""
        return self.refine(self.entry(images), boxes, batch_index, side)

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D, h, w): the whole image as one region, on CLIP's grid."""
        entry = self.entry(images)
        boxes = torch.tensor([[0.0, 0, 1, 1]], device=entry.device).expand(len(entry), -1)
        grid = (entry.shape[2], entry.shape[3])
        tokens = self.refine(entry, boxes, torch.arange(len(entry), device=entry.device), grid)
        found: Tensor = tokens.transpose(1, 2).unflatten(2, grid)
        return found

    def entry(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, C, h, w): the tokens before the copied blocks.

        They are the tokens that enter the CLIP's last blocks, plus a linear function of two earlier layers.
        """
        first, second = self.shape.layers
        with torch.no_grad():
            *early, late = self.clip.layers(
                images, (first, second, len(self.clip.blocks()) - self.shape.depth)
            )
        mixed = self.mix(torch.cat(early, dim=1).permute(0, 2, 3, 1))
        found: Tensor = late + mixed.permute(0, 3, 1, 2)
        return found

    def refine(
        self, entry: Tensor, boxes: Tensor, batch_index: Tensor, side: int | tuple[int, int]
    ) -> Tensor:
        """Computes the refined tokens of regions, in CLIP's mode `value`.

        Args:
            entry: (B, C, h, w), the result of `entry`.
            boxes: (R, 4) xyxy normalised to the canvas. RoIAlign makes the tokens of a box, and an MLP makes
                its [CLS] token from their mean.
            batch_index: (R,) which image each box belongs to.
            side: Side of a box's token grid, or its (height, width).

        Returns:
            (R, side * side, D) float32, unit norm.
        """
        tokens = region_tokens(entry, boxes, batch_index, side)
        cls = self.region_cls(region_pool(entry, boxes, batch_index, normalize=False))
        x = torch.cat([cls[:, None], tokens], dim=1)
        grid = (side, side) if isinstance(side, int) else side
        return self.clip.value_map(x, grid, self.blocks).flatten(2).transpose(1, 2)


def make_refiner(clip: DenseCLIP, shape: RefinerShape | None = None, *, depth: int | None = None) -> Refiner:
    """Makes a Refiner for a loaded CLIP.

    Args:
        clip: The CLIP.
        shape: Its shape, by default `RefinerShape.of(clip, depth)`.
        depth: Number of blocks to copy, by default the paper's.

    Raises:
        DenseCLIError: The network has no blocks with a [CLS] token, or fewer than `depth`.
    """
    if not isinstance(clip, DenseTransformer) or not clip.prefix:
        raise DenseCLIError(
            f"{clip.arch.name} has no transformer blocks with a [CLS] token, which a Refiner copies.",
            hint="Choose a vision transformer, such as eva02-b16.",
        )
    return Refiner(clip, shape or RefinerShape.of(clip, depth)).to(clip.device).eval()


def load_refiner(name: str, weights: str | None, refiner: str, device: str | torch.device = "cpu") -> Refiner:
    """Loads a CLIP and its Refiner, in eval mode.

    Args:
        name: Name of the CLIP.
        weights: The CLIP's weights; see `load_model`.
        refiner: A file that train-refiner wrote, or random:SEED.
        device: Where the model is put.

    Raises:
        DenseCLIError: The file is not a Refiner, or it belongs to another CLIP.
    """
    clip, info = load_model(name, weights, device)
    seed = random_seed(refiner)
    if seed is not None:
        return seeded(lambda: make_refiner(clip), seed)
    card = read_card(refiner)
    if card["clip"] != info.sha256:
        raise DenseCLIError(
            f"The Refiner {refiner} was trained with other weights of {name} than {info.source}.",
            hint="Give the weights that it was trained with, or train another with densecli train-refiner.",
        )
    shape = RefinerShape(depth=card["depth"], layers=tuple(card["layers"]), hidden=card["hidden"])
    model = seeded(lambda: make_refiner(clip, shape), 0)
    state = {f"clip.{key}": tensor for key, tensor in clip.state_dict().items()} | read_state_dict(refiner)
    load_strictly(model, state, name=f"the Refiner of {name}", source=refiner)
    return model


def card_of(refiner: Refiner, info: WeightsInfo) -> dict[str, Any]:
    """The metadata of a Refiner's file; info: the source of the CLIP's weights."""
    return {"clip": info.sha256, "architecture": refiner.clip.arch.name, **asdict(refiner.shape)}


class _Card(TypedDict):
    """`card_of`."""

    clip: str
    depth: int
    layers: list[int]
    hidden: int


def read_card(path: str) -> Mapping[str, Any]:
    """Reads the metadata of a Refiner's file. Raises DenseCLIError if it is not a Refiner."""
    if not Path(path).is_file():
        raise DenseCLIError(f"There is no Refiner {path}.", hint="Train it with densecli train-refiner.")
    try:
        with safe_open(path, framework="pt") as file:
            found = parse(file.metadata()[METADATA].encode())
        check(found, _Card)
    except Exception as error:  # of safetensors, json or the look-ups
        raise DenseCLIError(
            f"{path} is not a Refiner.", hint="Give the export/refiner.safetensors of a train-refiner run."
        ) from error
    card: Mapping[str, Any] = found
    return card
