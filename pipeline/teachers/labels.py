"""The teacher of `labels`: category distributions retrieved by a P-VLM for every box (DenseVLM)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core import fs
from densecli.core.device import full_precision
from densecli.models.architecture import Architecture
from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.dense import DenseCLIP
from densecli.models.flops import dense_forward
from densecli.models.pooling import mask_pool, region_pool
from densecli.models.prompts import default_templates, find_templates
from densecli.models.registry import is_clip, resolve
from densecli.models.text import category_embeddings
from densecli.pipeline.config import LabelSettings
from densecli.pipeline.teachers.base import (
    Cost,
    Photo,
    boxes_of,
    clip_names,
    clip_spec,
    file_sha256,
    weights_for,
    weights_info,
)
from densecli.pipeline.teachers.families import TEACHERS, TeacherFamily
from densecli.pipeline.transfers import to_device
from densecli.shards.codecs import Arrays, Errors, TopK
from densecli.shards.config import ALL_THINGS
from densecli.shards.datasets import defaults_for
from densecli.shards.specs import ColumnInfo, NetworkSpec, TargetSpec, TeacherSpec, TextSpec

if TYPE_CHECKING:
    from densecli.pipeline.config import BuildConfig


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How labels are retrieved for regions, whatever the source of their embeddings.

    Attributes:
        categories: A shipped category set or a file.
        text_embeddings: A .npy file of embeddings; None for those of the model's text tower.
        templates: Prompt templates for the text tower, see `find_templates`; None for the model's default.
        tau: Softmax temperature.
        k: Number of categories stored for a box, see `TopK`.
        tail_mass: Probability that may be left out, see `TopK`.
        dtype: Type of the stored probabilities.
    """

    categories: str
    text_embeddings: str | None = None
    templates: str | None = None
    tau: float = LabelSettings.tau
    k: int = TopK.k
    tail_mass: float = TopK.tail_mass
    dtype: str = "fp16"

    def target_spec(self, arch: Architecture) -> TargetSpec:
        """Returns `spec["target"]` of a column of labels. Raises DenseCLIError if a file is missing."""
        if self.text_embeddings:
            text: TextSpec = {"sha256": file_sha256(self.text_embeddings, "--text-embeddings")}
        else:
            text = {"templates": list(self.prompts(arch))}
        names = load_categories(self.categories).names
        return {"name": "labels", "tau": self.tau, "categories": list(names), "text": text}

    def codec(self) -> TopK:
        """Returns the codec of distributions over the categories."""
        things = load_categories(self.categories).thing_flags().tolist()
        return TopK(things=tuple(things), k=self.k, tail_mass=self.tail_mass, dtype=self.dtype)

    def prompts(self, arch: Architecture) -> tuple[str, ...]:
        """Returns the prompt templates, each with a {} for the category."""
        return default_templates(arch) if self.templates is None else find_templates(self.templates)


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(Retrieval):
    """A P-VLM that retrieves labels, before it is loaded.

    Attributes:
        name: A model's name or alias.
        weights: A path or random:SEED.
        resample: Resizes the canvas to the nearest multiple of the patch, so that boxes map exactly. Without
            it, a patch of 14 on 512 px loses the last 8 px, as in DenseVLM's released code.
    """

    name: str
    weights: str
    resample: bool = True

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights and the text embeddings."""
        return {
            **map_spec(self.name, self.weights, self.resample),
            "producer": "labels/1",
            "target": self.target_spec(resolve(self.name)),
            "codec": self.codec().spec,
        }

    def info(self) -> ColumnInfo:
        """See `TeacherConfig.info`; with the name of the category set."""
        return {**weights_info(self.weights), "categories": load_categories(self.categories).name}

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        flops = dense_forward(self.name, photo.canvas.size).flops
        codec = self.codec()
        shape = len(photo.regions.boxes), len(codec.things)
        thing = {"thing": np.zeros(shape[0], bool)}
        # A teacher that is unsure of every box keeps all categories.
        most = replace(codec, k=shape[1]).blank(shape) if codec.k < shape[1] else None
        return Cost(
            stored={**codec.blank(shape), **thing},
            once=flops,
            visit=flops,
            most={**most, **thing} if most else None,
        )

    def load(self, device: str) -> LabelsTeacher:
        """See `TeacherConfig.load`."""
        return LabelsTeacher(self, device)


class LabelsTeacher:
    """The P-VLM on its device, with its text embeddings (D, C) of unit norm."""

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
        """Returns the canvas, (1, S, S, 3) uint8."""
        return photo.padded()[None]

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns dense maps (B, C, h, w) of canvases (B, 3, S, S)."""
        return retrieval_map(self.model, inputs, resample=self.config.resample)

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns for each photo p (N, D) float32 for its N regions."""
        regions = pooled_regions(torch.cat(list(outputs)), photos)
        with full_precision(self.device):
            # A rounded cosine would be off by a hundredfold after the division by tau.
            p = retrieve(regions, self.text, self.config.tau)
        return list(p.split([len(photo.regions.boxes) for photo in photos]))

    def encode(self, photo: Photo, target: np.ndarray) -> tuple[Arrays, Errors]:
        """See `encode_labels`."""
        return encode_labels(self.codec, target)


def map_spec(model: str, weights: str, resample: bool) -> NetworkSpec:
    """Returns everything that `retrieval_map` depends on, for a column's spec."""
    return clip_spec(model, weights, "nearest multiple of the patch" if resample else "canvas")


def retrieval_map(model: DenseCLIP, canvases: Tensor, *, resample: bool) -> Tensor:
    """Computes the maps that regions are pooled from.

    Args:
        model: The P-VLM.
        canvases: (B, 3, S, S), 0..255.
        resample: See `LabelsConfig`.

    Returns:
        (B, C, h, w), unit norm per token.
    """
    return model.dense(model.prepare(canvases, resample=resample), mode="value")


def retrieve(regions: Tensor, text: Tensor, tau: float) -> Tensor:
    """Returns p = softmax(cos(region, text) / tau) over all categories (DenseVLM, eq. 2).

    Args:
        regions: (N, C), unit norm.
        text: (D, C), unit norm.
        tau: Softmax temperature.

    Returns:
        (N, D).
    """
    return F.softmax(regions @ text.T / tau, dim=1)


def pooled_regions(dense: Tensor, photos: Sequence[Photo]) -> Tensor:
    """Pools the regions of photos, over their masks if they have some, else over their boxes.

    Args:
        dense: (B, C, h, w), the maps of B photos.
        photos: The photos, with R regions in total.

    Returns:
        (R, C), unit norm.
    """
    if photos[0].regions.masks is None:
        boxes, of_image = boxes_of([photo.regions.boxes for photo in photos], dense.device)
        return region_pool(dense, boxes, of_image)
    height, width = dense.shape[-2:]
    masks = [photo.regions.coverage((height, width)) for photo in photos]
    return mask_pool(dense, to_device([np.concatenate(masks)], dense.device)[0], list(map(len, masks)))


def encode_labels(codec: TopK, p: np.ndarray) -> tuple[Arrays, Errors]:
    """Returns the codec's arrays of p (N, D), and `thing` (N,) bool: whether the best category is a thing."""
    arrays, error = codec.encode(p)
    return {**arrays, "thing": np.array(codec.things)[p.argmax(1)]}, error


Name = TypeVar("Name", str, str | None)


def absolute_file(name: Name) -> Name:
    """An absolute path, where a name is that of a file: workers run in other folders."""
    return fs.absolute(name) if name and os.path.isfile(name) else name


def absolute_categories(categories: str) -> str:
    """`absolute_file` of categories, all of which may be things."""
    prefix = ALL_THINGS if categories.startswith(ALL_THINGS) else ""
    return prefix + absolute_file(categories.removeprefix(prefix))


def _configure(model: str, settings: BuildConfig) -> LabelsConfig:
    categories = settings.categories or defaults_for(settings.dataset).categories
    return LabelsConfig(
        name=model,
        weights=weights_for(model, settings),
        categories=absolute_categories(categories),
        text_embeddings=fs.absolute(settings.text_embeddings) if settings.text_embeddings else None,
        templates=absolute_file(settings.templates),
        tau=settings.tau,
        resample=settings.resample,
    )


TEACHERS.add(
    "labels",
    TeacherFamily(kind="labels", models=clip_names, has_model=is_clip, configure=_configure),
    help="A P-VLM's category distribution for every box (DenseVLM).",
    needs="weights of a CLIP",
)
