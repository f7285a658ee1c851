"""CLIPSelf's teacher: a CLIP's own [CLS] of the crop of each cell, of K views of every photo."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.models.checkpoints import load_model
from densecli.models.flops import image_forward
from densecli.models.registry import resolve
from densecli.pipeline.teachers.base import Cost, Photo, clip_spec, weights_info
from densecli.shards.codecs import Arrays, Errors, Rows
from densecli.shards.geometry import RESAMPLE
from densecli.shards.regions import stored_views


@dataclass(frozen=True, kw_only=True)
class CropsConfig:
    """A teacher of crops, not loaded yet.

    model: a model's name or alias. weights: a path or random:SEED. views: K, how many of a photo's views it
    is asked about: a forward a cell is what it costs. seed: of the choice. context: of the region plan, how
    much larger than its box a crop is. codec: how the embeddings are stored.
    """

    model: str
    weights: str
    views: int = 4
    seed: int = 0
    context: float = 1.0
    codec: Rows = field(default_factory=Rows)

    @property
    def name(self) -> str:
        return f"crops-{self.model}"

    @property
    def of_regions(self) -> bool:
        return True

    def spec(self) -> dict[str, Any]:
        """Digests the weights; raises DenseCLIError where they are missing."""
        return {
            **clip_spec(self.model, self.weights, "crop"),
            "producer": "crops/1",
            "target": {
                "name": "crops",
                "views": self.views,
                "seed": self.seed,
                "crop": {
                    "side": resolve(self.model).native_side,
                    "context": self.context,
                    "fit": "longest side, centred on black",
                    "resample": RESAMPLE.name.lower(),
                },
            },
            "codec": self.codec.spec,
        }

    def info(self) -> dict[str, Any]:
        return weights_info(self.weights)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`. A live teacher sees the crops of one view at a visit."""
        look = image_forward(self.model)
        views = self.stored_views(photo)
        cells = np.diff(photo.regions.offsets)
        stored = {**self.codec.blank((int(cells[views].sum()), look.shape[0])), "views": views}
        return Cost(stored=stored, once=look.flops * cells[views].sum(), visit=look.flops * cells.mean())

    def stored_views(self, photo: Photo) -> np.ndarray:
        """(K,) int32: the views whose cells are cropped."""
        return stored_views(photo.key, photo.regions.n_views, self.views, self.seed)

    def load(self, device: str) -> "CropsTeacher":
        return CropsTeacher(self, device)


class CropsTeacher:
    """The CLIP on its device."""

    def __init__(self, config: CropsConfig, device: str) -> None:
        self.config = config
        self.name = config.name
        self.device = torch.device(device)
        self.model, _ = load_model(config.model, config.weights, device)
        self.side = self.model.arch.native_side

    def inputs(self, photo: Photo) -> np.ndarray:
        """(M, side, side, 3) uint8: the crops of the cells of the stored views, view after view."""
        regions = photo.regions
        cells = [cell for view in self.config.stored_views(photo) for cell in regions.view(view)]
        crops = np.empty((len(cells), self.side, self.side, 3), np.uint8)
        for crop, cell in zip(crops, cells, strict=True):
            crop[:] = photo.canvas.crop(photo.image, regions.boxes[cell], self.side, self.config.context)
        return crops

    def look(self, pictures: Tensor) -> Tensor:
        """(B, 3, side, side) -> image embeddings (B, C) of unit norm."""
        return F.normalize(self.model.encode_image(self.model.normalize(pictures)).float(), dim=1)

    def target(self, photo: Photo, seen: list[Tensor]) -> np.ndarray:
        """(M, C) float32 unit rows, in the order of `inputs`."""
        return torch.stack(seen).cpu().numpy() if seen else np.zeros((0, self.model.embed_dim), np.float32)

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """(M, C) rows -> the codec's arrays, and `views` int32 (K,), the views they are of."""
        arrays, error = self.config.codec.encode(target)
        return {**arrays, "views": self.config.stored_views(photo)}, error
