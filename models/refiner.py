"""R-SC's Refiner: a network's own last blocks, trained anew to see a region as they see its crop.

Of Qiu et al., Refining CLIP's Spatial Awareness (ICLR 2025). The network, a CLIP or a VFM, stays as it is;
the tokens that enter its last blocks still keep regions apart, and the clone of those blocks runs on the
tokens of one region, so that nothing outside it can be mixed in.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.models.dense import DenseCLIP
from densecli.models.pooling import region_pool, region_tokens
from densecli.models.registry import build
from densecli.models.student import DenseVFM, Student, load_student
from densecli.models.transformer import DenseTransformer
from densecli.models.vfm import build_vfm

Start = Literal["own", "random", "exogenous", "pacl"]
STARTS: tuple[str, ...] = get_args(Start)
"""What a Refiner begins as: the network's own last blocks, random ones in their place, random ones that run
after all blocks of the network, or PACL's vision embedder in place of blocks (R-SC, table 6b)."""


@dataclass(frozen=True, kw_only=True)
class RefinerShape:
    """The parts of a Refiner.

    Attributes:
        depth: Number of its blocks.
        layers: Two numbers of blocks; the tokens after these are mixed into those that enter it.
        hidden: Width of both MLPs.
        fc_inter: Whether it mixes in tokens of earlier layers (eq. 11).
        fc_cls: Whether an MLP makes a region's [CLS] token from its pooled tokens (eq. 10), which otherwise
            are it.
        exogenous: Whether its blocks come after all blocks of the network, not in place of the last ones.
        late: Whether it runs over the whole image, and regions are taken from its map (eq. 12).
        pacl: Whether a `VisionEmbedder` on the network's dense map takes the place of blocks and MLPs.
    """

    depth: int
    layers: tuple[int, int]
    hidden: int
    fc_inter: bool = True
    fc_cls: bool = True
    exogenous: bool = False
    late: bool = False
    pacl: bool = False

    @classmethod
    def of(
        cls, encoder: "DenseTransformer | DenseVFM", depth: int | None = None, **parts: bool
    ) -> "RefinerShape":
        """The paper's for networks of 12 and 24 blocks, in proportion for others, of half of their blocks.

        Args:
            encoder: The network.
            depth: Another depth.
            parts: Values of `fc_inter`, `fc_cls`, `exogenous`, `late` and `pacl`.

        Raises:
            DenseCLIError: There are fewer blocks.
        """
        blocks = len(encoder.blocks())
        published = {12: (4, (4, 7)), 24: (6, (9, 14))}
        in_proportion = (blocks // 2, (round(blocks * 4 / 12), round(blocks * 7 / 12)))
        default_depth, layers = published.get(blocks, in_proportion)
        depth = depth or default_depth
        if depth > blocks:
            raise DenseCLIError(
                f"{encoder.arch.name} has {blocks} blocks, not {depth}.", hint=f"Give --depth 1 to {blocks}."
            )
        hidden = min(4096, round(encoder.width * 4096 / 768))
        return cls(depth=depth, layers=layers, hidden=hidden, **parts)


class VisionEmbedder(nn.Module):
    """PACL's residual block for each token: W0 x + W2 relu(W1 x) (Mukhoti et al. 2023).

    It begins as the identity: W0 = 1, W2 = 0.
    """

    def __init__(self, width: int) -> None:
        """Makes the block for tokens of `width` numbers; W1 is random, from torch's current generator."""
        super().__init__()
        self.skip = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        nn.init.eye_(self.skip.weight)
        for parameter in (self.skip.bias, *self.mlp[-1].parameters()):
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps (..., width) to the same."""
        found: Tensor = self.skip(tokens) + self.mlp(tokens)
        return found


class Refiner(nn.Module):
    """Around a frozen network, `encoder`.

    Its own parts are all that is not below `encoder.`. With the network's own blocks it begins as they are,
    but for the region's [CLS].
    """

    def __init__(
        self, encoder: DenseTransformer | DenseVFM, shape: RefinerShape, blocks: nn.ModuleList | None = None
    ) -> None:
        """Builds it; the MLPs are random, from torch's current generator, but what is mixed in begins with 0.

        Args:
            encoder: The network.
            shape: Shape of the Refiner.
            blocks: Copied in place of the network's own last blocks.
        """
        super().__init__()
        self.encoder = encoder
        self.shape = shape
        width = encoder.width
        self.embedder = VisionEmbedder(encoder.embed_dim) if shape.pacl else None
        with_mlps = not shape.pacl
        self.fc_inter = _mlp(2 * width, shape.hidden, width) if shape.fc_inter and with_mlps else None
        if self.fc_inter is not None:
            for parameter in self.fc_inter[-1].parameters():
                nn.init.zeros_(parameter)
        self.fc_cls = _mlp(width, shape.hidden, width) if shape.fc_cls and with_mlps else None
        own = encoder.blocks()[-shape.depth :]
        self.blocks = nn.ModuleList() if shape.pacl else copy.deepcopy(own if blocks is None else blocks)

    def frozen_names(self) -> set[str]:
        """Names of the network's parameters, and of those that the last block never reads."""
        of_encoder = dict(self.encoder.named_parameters())
        if self.embedder is not None:
            return {f"encoder.{name}" for name in of_encoder}
        frozen = {of_encoder[name] for name in self.encoder.frozen_names("value")}
        unread = {name for name, p in self.encoder.blocks()[-1].named_parameters() if p in frozen}
        last = len(self.blocks) - 1
        return {f"encoder.{name}" for name in of_encoder} | {f"blocks.{last}.{name}" for name in unread}

    def own_state(self) -> dict[str, Tensor]:
        """The state dict without the network's."""
        return {name: t for name, t in self.state_dict().items() if not name.startswith("encoder.")}

    def forward(self, images: Tensor, boxes: Tensor, batch_index: Tensor, side: int) -> Tensor:
        """(B, 3, H, W) normalised pixels and boxes as `refine` takes them -> the same."""
        return self.refine(self.entry(images), boxes, batch_index, side)

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D, h, w): the whole image as one region, on its own grid."""
        return self._map(self.entry(images))

    def _map(self, entry: Tensor) -> Tensor:
        """(B, 2 C, h, w) of `entry` -> (B, D, h, w), unit norm: the whole image as one region."""
        boxes = whole_boxes(len(entry), entry.device)
        grid = (entry.shape[2], entry.shape[3])
        tokens = self._regions(entry, boxes, torch.arange(len(entry), device=entry.device), grid)
        found: Tensor = tokens.transpose(1, 2).unflatten(2, grid)
        return found

    def entry(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, 2 C, h, w).

        First f_A(X), the tokens that enter the last blocks, then f_A(X) + FC_Inter of those of two earlier
        layers. For PACL's embedder both are the network's dense map (C = D).
        """
        if self.embedder is not None:
            with torch.no_grad():
                dense = self.encoder.dense(images)
            return torch.cat([dense, dense], dim=1)
        first, second = self.shape.layers
        blocks = len(self.encoder.blocks())
        last = blocks if self.shape.exogenous else blocks - self.shape.depth
        with torch.no_grad():
            *early, late = self.encoder.layers(images, (first, second, last))
        if self.fc_inter is None:
            return torch.cat([late, late], dim=1)
        mixed = self.fc_inter(torch.cat(early, dim=1).permute(0, 2, 3, 1))
        return torch.cat([late, late + mixed.permute(0, 3, 1, 2)], dim=1)

    def refine(
        self, entry: Tensor, boxes: Tensor, batch_index: Tensor, side: int | tuple[int, int]
    ) -> Tensor:
        """The regions' own tokens, as the clone of the last blocks makes them (R-SC, eqs 10 and 11).

        With `shape.late`, tokens are taken by RoIAlign of what they make of the whole image (eq. 12).

        Args:
            entry: (B, 2 C, h, w) of `entry`.
            boxes: (R, 4) normalised xyxy. RoIAlign makes side x side tokens of each; its [CLS] is FC_CLS of
                the mean of f_A(X) in it, by RoIAlign to 1 x 1.
            batch_index: (R,) images of the boxes.
            side: Side of a box in tokens, or (height, width).

        Returns:
            (R, side * side, D) float32, unit norm: of a CLIP in its `value` reading, of a VFM after its norm.
        """
        if self.shape.late:
            return F.normalize(region_tokens(self._map(entry), boxes, batch_index, side), dim=2)
        return self._regions(entry, boxes, batch_index, side)

    def _regions(
        self, entry: Tensor, boxes: Tensor, batch_index: Tensor, side: int | tuple[int, int]
    ) -> Tensor:
        """See `refine`; never late."""
        late, mixed = entry.chunk(2, dim=1)
        tokens = region_tokens(mixed, boxes, batch_index, side)
        if self.embedder is not None:
            return F.normalize(self.embedder(tokens).float(), dim=2)
        cls = region_pool(late, boxes, batch_index, normalize=False)
        cls = cls if self.fc_cls is None else self.fc_cls(cls)
        x = torch.cat([cls[:, None], tokens], dim=1)
        grid = (side, side) if isinstance(side, int) else side
        return self.encoder.value_map(x, grid, self.blocks).flatten(2).transpose(1, 2)


def make_refiner(
    encoder: Student,
    shape: RefinerShape | None = None,
    *,
    depth: int | None = None,
    blocks: nn.ModuleList | None = None,
) -> Refiner:
    """Builds a Refiner of a loaded network.

    Args:
        encoder: The network.
        shape: Shape of the Refiner; None: `RefinerShape.of` this depth.
        depth: See `RefinerShape.of`.
        blocks: See `Refiner`.

    Raises:
        DenseCLIError: The network has no blocks with a [CLS] token and learnt positions, or fewer.
    """
    checked = check_blocks(encoder)
    device = next(encoder.parameters()).device
    return Refiner(checked, shape or RefinerShape.of(checked, depth), blocks).to(device).eval()


def check_blocks(encoder: Student) -> DenseTransformer | DenseVFM:
    """The network, where a Refiner can be made of it. Raises DenseCLIError."""
    fits = encoder.vfm.has_cls if isinstance(encoder, DenseVFM) else None
    if fits is None:
        fits = isinstance(encoder, DenseTransformer) and encoder.prefix > 0
    if not fits:
        raise DenseCLIError(
            f"{encoder.arch.name} has no transformer blocks with a [CLS] token, of which a Refiner is made.",
            hint="Choose a vision transformer, such as eva02-b16 or dinov2-vitb14.",
        )
    assert isinstance(encoder, DenseTransformer | DenseVFM)
    return encoder


def starting_blocks(encoder: DenseTransformer | DenseVFM, depth: int, start: str) -> nn.ModuleList | None:
    """Makes the initial blocks of a Refiner.

    Args:
        encoder: The network.
        depth: Number of blocks.
        start: One of STARTS, or NAME or NAME=WEIGHTS of another vision transformer, whose last blocks are
            copied. Random blocks come from torch's current generator.

    Returns:
        The blocks; None for the network's own, or where there are none.

    Raises:
        DenseCLIError: The other network's blocks are of another kind or size.
    """
    if start in ("own", "pacl"):
        return None
    if start in STARTS:
        fresh = build(encoder.arch) if isinstance(encoder, DenseCLIP) else DenseVFM(build_vfm(encoder.arch))
        return check_blocks(fresh).blocks()[-depth:]
    name, _, weights = start.partition("=")
    blocks: Any = check_blocks(load_student(name, weights or None)[0]).blocks()[-depth:]
    own = encoder.blocks()[-depth:].state_dict()
    others = blocks.state_dict()
    if {key: t.shape for key, t in own.items()} != {key: t.shape for key, t in others.items()}:
        raise DenseCLIError(
            f"The blocks of {name} are not of the kind and size of those of {encoder.arch.name}.",
            hint="Choose a model of the same architecture with other weights.",
        )
    found = copy.deepcopy(encoder.blocks()[-depth:])
    found.load_state_dict(others)
    return found


def whole_boxes(count: int, device: torch.device) -> Tensor:
    """(count, 4) boxes, each all of an image."""
    return torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).expand(count, -1)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
