"""R-SC's Refiner: a CLIP's own last blocks, trained anew to see a region of an image as they see its crop.

Of Qiu et al., Refining CLIP's Spatial Awareness (ICLR 2025). The CLIP stays as it is; the tokens that enter
its last blocks still keep regions apart, and the clone of those blocks runs on the tokens of one region, so
that nothing outside it can be mixed in.
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
"""Name under which a Refiner's file says what it is: json with `clip` (sha256 of the CLIP's weights) and the
fields of RefinerShape."""


@dataclass(frozen=True, kw_only=True)
class RefinerShape:
    """depth: of the CLIP's last blocks, how many are cloned. layers: the two numbers of blocks after which
    tokens are mixed into those that enter the clone. hidden: width of the region CLS's MLP."""

    depth: int
    layers: tuple[int, int]
    hidden: int

    @classmethod
    def of(cls, clip: DenseTransformer, depth: int | None = None) -> "RefinerShape":
        """The paper's, for ViT-B and ViT-L; half of the blocks and the rest in proportion to B for others.

        depth: another one. Raises DenseCLIError at more than there are blocks.
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
    """Around a frozen CLIP. Its own parts are all that is not below `clip.`; it begins as the CLIP's blocks,
    but for the region CLS."""

    def __init__(self, clip: DenseTransformer, shape: RefinerShape | None = None) -> None:
        """The linear parts are random, from torch's current generator; what is mixed in begins with zeros."""
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
        """Names of the parameters of the CLIP, and of those that the clone's last block never reads."""
        of_clip = dict(self.clip.named_parameters())
        frozen = {of_clip[name] for name in self.clip.frozen_names("value")}
        unread = {name for name, p in self.clip.blocks()[-1].named_parameters() if p in frozen}
        last = len(self.blocks) - 1
        return {f"clip.{name}" for name in of_clip} | {f"blocks.{last}.{name}" for name in unread}

    def own_state(self) -> dict[str, Tensor]:
        """The state dict without the CLIP's."""
        return {name: t for name, t in self.state_dict().items() if not name.startswith("clip.")}

    def forward(self, images: Tensor, boxes: Tensor, batch_index: Tensor, side: int) -> Tensor:
        """(B, 3, H, W) normalised pixels and boxes as `refine` takes them -> the same."""
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
        """(B, 3, H, W) normalised pixels -> (B, C, h, w): the tokens that enter the CLIP's last blocks, plus
        a linear function of those of two earlier layers."""
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
        """The regions' own tokens, as the clone of the last blocks says them in CLIP's `value` reading.

        entry: (B, C, h, w) of `entry`. boxes: (R, 4) normalised xyxy of images batch_index (R,); each becomes
        side x side tokens by RoIAlign, or (height, width), and its CLS is made of its mean. Returns float32
        (R, side * side, D), unit norm.
        """
        tokens = region_tokens(entry, boxes, batch_index, side)
        cls = self.region_cls(region_pool(entry, boxes, batch_index, normalize=False))
        x = torch.cat([cls[:, None], tokens], dim=1)
        grid = (side, side) if isinstance(side, int) else side
        return self.clip.value_map(x, grid, self.blocks).flatten(2).transpose(1, 2)


def make_refiner(clip: DenseCLIP, shape: RefinerShape | None = None, *, depth: int | None = None) -> Refiner:
    """A Refiner of a loaded CLIP, of a shape or else of `RefinerShape.of` this depth.

    Raises DenseCLIError for a network without blocks, or with fewer.
    """
    if not isinstance(clip, DenseTransformer) or not clip.prefix:
        raise DenseCLIError(
            f"{clip.arch.name} has no transformer blocks with a [CLS] token, of which a Refiner is made.",
            hint="Choose a vision transformer, such as eva02-b16.",
        )
    return Refiner(clip, shape or RefinerShape.of(clip, depth)).to(clip.device).eval()


def load_refiner(name: str, weights: str | None, refiner: str, device: str | torch.device = "cpu") -> Refiner:
    """The Refiner of the model called `name`, in eval mode; `weights` are the model's, see `load_model`.

    refiner: its own, a file that train-refiner wrote or random:SEED. Raises DenseCLIError for a file that is
    no Refiner's, or that of another CLIP.
    """
    clip, info = load_model(name, weights, device)
    seed = random_seed(refiner)
    if seed is not None:
        return seeded(lambda: make_refiner(clip), seed)
    card = read_card(refiner)
    if card["clip"] != info.sha256:
        raise DenseCLIError(
            f"The Refiner {refiner} was trained on other weights of {name} than {info.source}.",
            hint="Give the weights that it was trained on, or train another with densecli train-refiner.",
        )
    shape = RefinerShape(depth=card["depth"], layers=tuple(card["layers"]), hidden=card["hidden"])
    model = seeded(lambda: make_refiner(clip, shape), 0)
    state = {f"clip.{key}": tensor for key, tensor in clip.state_dict().items()} | read_state_dict(refiner)
    load_strictly(model, state, name=f"the Refiner of {name}", source=refiner)
    return model


def card_of(refiner: Refiner, info: WeightsInfo) -> dict[str, Any]:
    """What a Refiner's file says about itself; info: of the CLIP's weights."""
    return {"clip": info.sha256, "architecture": refiner.clip.arch.name, **asdict(refiner.shape)}


class _Card(TypedDict):
    """`card_of`."""

    clip: str
    depth: int
    layers: list[int]
    hidden: int


def read_card(path: str) -> Mapping[str, Any]:
    """`card_of` of a Refiner's file. Raises DenseCLIError where it is none."""
    if not Path(path).is_file():
        raise DenseCLIError(f"There is no Refiner {path}.", hint="Train it with densecli train-refiner.")
    try:
        with safe_open(path, framework="pt") as file:
            found = parse(file.metadata()[METADATA].encode())
        check(found, _Card)
    except Exception as error:  # safetensors raises its own, json and the lookups others
        raise DenseCLIError(
            f"{path} is not a Refiner.", hint="Give the export/refiner.safetensors of a train-refiner run."
        ) from error
    card: Mapping[str, Any] = found
    return card
