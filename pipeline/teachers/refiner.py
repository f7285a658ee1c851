"""R-SC's teacher: a CLIP's Refiner, asked about each cell of K views; kept as a factor a box."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densecli.models.flops import refiner_forward
from densecli.models.refiner import load_refiner
from densecli.models.registry import resolve
from densecli.pipeline.teachers.base import Cost, Photo, weights_id, weights_info
from densecli.shards.codecs import Arrays, Errors, LowRank, combine_errors
from densecli.shards.regions import stored_views

# Boxes that go through the Refiner at a time.
BOXES = 64


@dataclass(frozen=True, kw_only=True)
class RefinedConfig:
    """A Refiner, not loaded yet.

    model: a model's name or alias; weights: its, a path or random:SEED. refiner: the Refiner's own, a file or
    random:SEED. views: K, how many of a photo's views it is asked about; seed: of the choice. side: a box has
    side * side tokens. codec: how the factors are stored, a factor a box.
    """

    model: str
    weights: str
    refiner: str
    views: int = 4
    seed: int = 0
    side: int = 7
    codec: LowRank = field(default_factory=LowRank)

    @property
    def name(self) -> str:
        return f"refiner-{self.model}"

    @property
    def of_regions(self) -> bool:
        return True

    def spec(self) -> dict[str, Any]:
        """Digests the weights; raises DenseCLIError where they are missing."""
        arch = resolve(self.model)
        return {
            "producer": "refiner/1",
            "architecture": arch.name,
            "weights": weights_id(self.weights),
            "refiner": weights_id(self.refiner),
            "preprocessing": {
                "mean": list(arch.mean),
                "std": list(arch.std),
                "input": "nearest multiple of the patch",
            },
            "target": {"name": "refined", "views": self.views, "seed": self.seed, "side": self.side},
            "codec": self.codec.spec,
        }

    def info(self) -> dict[str, Any]:
        of_clip, own = weights_info(self.weights), weights_info(self.refiner)
        random = of_clip["random_weights"] or own["random_weights"]
        return {**of_clip, "refiner": own["weights"], "random_weights": random}

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`. A live Refiner sees the boxes of one view at a visit."""
        entry, box = refiner_forward(self.model, photo.canvas.size, self.side)
        cells, views = np.diff(photo.regions.offsets), self.stored_views(photo)
        boxes = int(cells[views].sum())
        of_box = self.codec.blank((self.side**2, box.shape[-1]))
        factors = {name: np.zeros((boxes * len(a), *a.shape[1:]), a.dtype) for name, a in of_box.items()}
        return Cost(
            stored={**factors, "views": views},
            once=entry.flops + box.flops * boxes,
            visit=entry.flops + box.flops * cells.mean(),
        )

    def stored_views(self, photo: Photo) -> np.ndarray:
        """(K,) int32: the views whose boxes are refined."""
        return stored_views(photo.key, photo.regions.n_views, self.views, self.seed)

    def load(self, device: str) -> "RefinedTeacher":
        return RefinedTeacher(self, device)


class RefinedTeacher:
    """The CLIP and its Refiner on their device."""

    def __init__(self, config: RefinedConfig, device: str) -> None:
        self.config = config
        self.name = config.name
        self.device = torch.device(device)
        self.model = load_refiner(config.model, config.weights, config.refiner, device)

    def inputs(self, photo: Photo) -> np.ndarray:
        """(1, S, S, 3) uint8: the canvas."""
        return photo.padded()[None]

    def look(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) -> the tokens that the Refiner's blocks start from, (B, C, h, w)."""
        return self.model.entry(self.model.clip.prepare(pictures))

    def target(self, photo: Photo, seen: list[Tensor]) -> np.ndarray:
        """(M, side * side, D) float32 unit tokens of the cells of the stored views, view after view."""
        [entry], regions = seen, photo.regions
        cells = [cell for view in self.config.stored_views(photo) for cell in regions.view(view)]
        boxes = torch.from_numpy(regions.boxes[cells]).to(self.device)
        parts = [
            self.model.refine(entry[None], some, torch.zeros(len(some), device=self.device), self.config.side)
            for some in boxes.split(BOXES)
        ]
        return torch.cat(parts).cpu().numpy()

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """(M, side * side, D) -> the codec's arrays, box after box, and `views` int32 (K,).

        The errors are those of the boxes' Gram matrices.
        """
        # A photo without boxes has rows of the same kind as others, none of them.
        boxes = target if len(target) else np.zeros((1, *target.shape[1:]), np.float32)
        coded, errors = zip(*map(self.config.codec.encode, boxes), strict=True)
        rank = max(arrays["x"].shape[1] for arrays in coded)
        joined = {
            name: np.concatenate([_widened(arrays[name], rank) for arrays in coded])[: target[..., 0].size]
            for name in coded[0]
        }
        return {**joined, "views": self.config.stored_views(photo)}, combine_errors(list(errors))


def _widened(array: np.ndarray, rank: int) -> np.ndarray:
    """(L, r) -> (L, rank) with columns of zeros, which leave the Gram matrix as it is; (L,) as it is."""
    return np.pad(array, [(0, 0), (0, rank - array.shape[1])]) if array.ndim == 2 else array
