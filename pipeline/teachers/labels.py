"""P-VLM retrieval (DenseVLM): the category distribution of every cell of every view from one forward pass."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.models.architecture import Architecture
from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.dense import DenseCLIP
from densecli.models.flops import dense_forward
from densecli.models.pooling import region_pool
from densecli.models.registry import resolve
from densecli.models.text import TEMPLATES, category_embeddings, default_templates
from densecli.pipeline.teachers.base import Cost, Photo, clip_spec, file_sha256, weights_info
from densecli.shards.codecs import Arrays, Errors, TopK
from densecli.shards.kinds import TAU


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What is retrieved for regions, whoever saw them.

    categories: a shipped set or a file. text_embeddings: a .npy of them, else the model's own text tower says
    them, in `templates` (a name; None: the model's default). tau: the softmax temperature. k, tail_mass,
    dtype: of the stored distributions, see `TopK`.
    """

    categories: str
    text_embeddings: str | None = None
    templates: str | None = None
    tau: float = TAU
    k: int = TopK.k
    tail_mass: float = TopK.tail_mass
    dtype: str = "fp16"

    def target(self, arch: Architecture) -> dict[str, Any]:
        """`spec.target` of a column of labels; raises DenseCLIError where a file is missing."""
        if self.text_embeddings:
            text: dict[str, Any] = {"sha256": file_sha256(self.text_embeddings, "--text-embeddings")}
        else:
            text = {"templates": list(self.prompts(arch))}
        names = load_categories(self.categories).names
        return {"name": "labels", "tau": self.tau, "categories": list(names), "text": text}

    def codec(self) -> TopK:
        """How distributions over the categories are stored."""
        things = load_categories(self.categories).thing_flags().tolist()
        return TopK(things=tuple(things), k=self.k, tail_mass=self.tail_mass, dtype=self.dtype)

    def prompts(self, arch: Architecture) -> tuple[str, ...]:
        """The templates, each with a {} for the category."""
        if self.templates is None:
            return default_templates(arch)
        if self.templates not in TEMPLATES:
            raise DenseCLIError(
                f"There are no templates {self.templates}.", hint=f"Known: {', '.join(TEMPLATES)}."
            )
        return TEMPLATES[self.templates]


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(Retrieval):
    """A retrieval teacher, not loaded yet.

    name: a model's name or alias. weights: a path or random:SEED. resample: the canvas is resized to the
    nearest multiple of the patch, so that boxes map exactly; without, a patch of 14 on 512 px loses the last
    8, as in DenseVLM's released code.
    """

    name: str
    weights: str
    resample: bool = True

    @property
    def of_regions(self) -> bool:
        return True

    def spec(self) -> dict[str, Any]:
        """Digests the weights and the text embeddings; raises DenseCLIError where one is missing."""
        return {
            **map_spec(self.name, self.weights, self.resample),
            "producer": "labels/1",
            "target": self.target(resolve(self.name)),
            "codec": self.codec().spec,
        }

    def info(self) -> dict[str, Any]:
        """Where the weights were found, whether they are random, and the name of the category set."""
        return {**weights_info(self.weights), "categories": load_categories(self.categories).name}

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        look = dense_forward(self.name, photo.canvas.size).flops
        codec, n = self.codec(), len(photo.regions.boxes)
        stored = {**codec.blank((n, len(codec.things))), "thing": np.zeros(n, bool)}
        return Cost(stored=stored, once=look, visit=look)

    def load(self, device: str) -> "LabelsTeacher":
        return LabelsTeacher(self, device)


class LabelsTeacher:
    """The P-VLM on its device, with its text embeddings (D, C), unit norm."""

    def __init__(self, config: LabelsConfig, device: str) -> None:
        self.config = config
        self.name = config.name
        self.device = torch.device(device)
        self.model, _ = load_model(config.name, config.weights, device)
        self.codec = config.codec()
        self.text = category_embeddings(
            self.model,
            load_categories(config.categories).names,
            file=config.text_embeddings,
            templates=config.prompts(self.model.arch),
        )

    def inputs(self, photo: Photo) -> np.ndarray:
        """(1, S, S, 3) uint8: the canvas."""
        return photo.padded()[None]

    def look(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) -> dense maps (B, C, h, w)."""
        return retrieval_map(self.model, pictures, resample=self.config.resample)

    def target(self, photo: Photo, seen: list[Tensor]) -> np.ndarray:
        """p (N, D) float32 for the photo's N boxes."""
        boxes = torch.from_numpy(photo.regions.boxes).to(self.device)
        of_image = torch.zeros(len(boxes), dtype=torch.long, device=self.device)
        regions = region_pool(seen[0][None], boxes, of_image)
        return retrieve(regions, self.text, self.config.tau).cpu().numpy()

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """See `encode_labels`."""
        return encode_labels(self.codec, target)


def map_spec(model: str, weights: str, resample: bool) -> dict[str, Any]:
    """What `retrieval_map` depends on, for a column's spec."""
    return clip_spec(model, weights, "nearest multiple of the patch" if resample else "canvas")


def retrieval_map(model: DenseCLIP, pictures: Tensor, *, resample: bool) -> Tensor:
    """(B, 3, S, S) canvases, 0..255 -> (B, C, h, w), unit norm per token: what labels are pooled from."""
    return model.dense(model.prepare(pictures, resample=resample), mode="value")


def retrieve(regions: Tensor, text: Tensor, tau: float) -> Tensor:
    """Regions (N, C) and categories (D, C), both of unit norm -> p (N, D).

    p = softmax(cos(region, text) / tau) over all D categories (DenseVLM, eq. 2).
    """
    return F.softmax(regions @ text.T / tau, dim=1)


def encode_labels(codec: TopK, p: np.ndarray) -> tuple[Arrays, Errors]:
    """p (N, D) -> the codec's arrays and `thing` (N,) bool, the flag of the most likely category."""
    arrays, error = codec.encode(p)
    return {**arrays, "thing": np.array(codec.things)[p.argmax(1)]}, error
