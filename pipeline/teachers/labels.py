"""P-VLM retrieval (DenseVLM): the category distribution of every cell of every view from one forward pass."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.categories import load_categories
from models.checkpoints import load_model
from models.pooling import region_pool
from models.registry import resolve
from models.text import TEMPLATES, category_embeddings, default_templates
from pipeline.teachers.base import Photo, file_sha256, weights_id, weights_info
from shards.codecs import Arrays, Errors, TopK
from shards.errors import DenseCLIError

PRODUCER = "labels/1"


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """A retrieval teacher, not loaded yet.

    name: a model's name or alias. weights: a path or random:SEED. categories: a shipped set or a file.
    text_embeddings: a .npy of them, else the teacher's own text tower says them, in `templates` (a name;
    None: the model's default). tau: the softmax temperature. resample: the canvas is resized to the nearest
    multiple of the patch, so that boxes map exactly; without, a patch of 14 on 512 px loses the last 8, as in
    DenseVLM's released code. rest, dtype: of the stored distributions, see `TopK`.
    """

    name: str
    weights: str
    categories: str
    text_embeddings: str | None = None
    templates: str | None = None
    tau: float = 0.01
    resample: bool = True
    rest: float = TopK.rest
    dtype: str = "fp16"

    def spec(self) -> dict[str, Any]:
        """Digests the weights and the text embeddings; raises DenseCLIError where one is missing."""
        arch = resolve(self.name)
        categories = load_categories(self.categories)
        return {
            "producer": PRODUCER,
            "architecture": arch.name,
            "weights": weights_id(self.weights),
            "preprocessing": {
                "mean": list(arch.mean),
                "std": list(arch.std),
                "input": "nearest multiple of the patch" if self.resample else "canvas",
            },
            "target": {
                "name": "labels",
                "tau": self.tau,
                "categories": list(categories.names),
                "text": {"sha256": file_sha256(self.text_embeddings, "--text-embeddings")}
                if self.text_embeddings
                else {"templates": list(self.prompts())},
            },
            "codec": self.codec().spec,
        }

    def info(self) -> dict[str, Any]:
        """Where the weights were found, whether they are random, and the name of the category set."""
        return {
            **weights_info(self.weights),
            "categories": load_categories(self.categories).name,
        }

    def load(self, device: str) -> "LabelsTeacher":
        return LabelsTeacher(self, device)

    def codec(self) -> TopK:
        """How distributions over the categories are stored."""
        things = load_categories(self.categories).thing_flags().tolist()
        return TopK(things=tuple(things), rest=self.rest, dtype=self.dtype)

    def prompts(self) -> tuple[str, ...]:
        """The templates, each with a {} for the category."""
        if self.templates is None:
            return default_templates(resolve(self.name))
        if self.templates not in TEMPLATES:
            raise DenseCLIError(
                f"There are no templates {self.templates}.", hint=f"Known: {', '.join(TEMPLATES)}."
            )
        return TEMPLATES[self.templates]

    @property
    def of_regions(self) -> bool:
        return True


class LabelsTeacher:
    """The P-VLM on its device, with its text embeddings (D, C), unit norm."""

    def __init__(self, config: LabelsConfig, device: str) -> None:
        self.config = config
        self.name = config.name
        self.device = torch.device(device)
        self.model, _ = load_model(config.name, config.weights, device)
        self.codec = config.codec()
        self.thing = np.array(self.codec.things)
        self.text = category_embeddings(
            self.model,
            load_categories(config.categories).names,
            file=config.text_embeddings,
            templates=config.prompts(),
        )

    def inputs(self, photo: Photo) -> np.ndarray:
        """(1, S, S, 3) uint8: the canvas."""
        return photo.padded()[None]

    def look(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) -> dense maps (B, C, h, w)."""
        return self.model.dense(self.model.prepare(pictures, resample=self.config.resample), mode="value")

    def target(self, photo: Photo, seen: list[Tensor]) -> np.ndarray:
        """p (N, D) float32 for the photo's N boxes.

        p = softmax(cos(region, text) / tau) over all D categories (DenseVLM, eq. 2).
        """
        boxes = torch.from_numpy(photo.regions.boxes).to(self.device)
        of_image = torch.zeros(len(boxes), dtype=torch.long, device=self.device)
        cosines = region_pool(seen[0][None], boxes, of_image) @ self.text.T
        return F.softmax(cosines / self.config.tau, dim=1).cpu().numpy()

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """p (N, D) -> the codec's arrays and `thing` (N,) bool, the flag of the most likely category."""
        arrays, error = self.codec.encode(target)
        return {**arrays, "thing": self.thing[target.argmax(1)]}, error
