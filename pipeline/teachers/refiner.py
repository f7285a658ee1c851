"""The teacher of `refined`: the Refiner of a CLIP or a VFM, run on each box of K views (R-SC-CLIPSelf)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.models.flops import refined_map_forward, refiner_forward
from densecli.models.refiner_checkpoints import WEIGHTS, default_run, load_refiner
from densecli.models.registry import is_clip
from densecli.models.vfms import VFMS, architecture_of, is_vfm
from densecli.models.weights import find_file, given_for
from densecli.pipeline.config import RANK, SELF_RANK, BuildConfig
from densecli.pipeline.teachers.base import (
    Cost,
    Photo,
    absolute_weights,
    boxes_of,
    clip_names,
    clip_spec,
    weights_for,
    weights_id,
    weights_info,
)
from densecli.pipeline.teachers.factors import array_names, encode_maps, errors_of
from densecli.pipeline.teachers.families import TEACHERS, TeacherFamily
from densecli.pipeline.teachers.gram import TokenTeacher, factor_codec, map_cost
from densecli.shards.codecs import Arrays, Errors, LowRank, combine_errors
from densecli.shards.kinds import KINDS
from densecli.shards.regions import stored_views
from densecli.shards.specs import ColumnInfo, TeacherSpec

NEEDS = "weights of a CLIP or a VFM, and of a Refiner by densecli train-refiner"
BOXES_PER_BATCH = 64
"""Number of boxes in a pass of the Refiner."""


@dataclass(frozen=True, kw_only=True)
class RefinedConfig:
    """A Refiner, before it is loaded.

    Attributes:
        model: Name or alias of the CLIP, or name of the VFM.
        weights: Its weights, a path or random:SEED.
        refiner: The Refiner's own weights, a path or random:SEED.
        views: K, the number of a photo's views whose boxes are refined.
        seed: Seed of the choice of views.
        side: Side of the token grid of a box.
        codec: How the factors are stored; each box has its own.
    """

    model: str
    weights: str
    refiner: str
    views: int = BuildConfig.views
    seed: int = BuildConfig.seed
    side: int = BuildConfig.side
    codec: LowRank = field(default_factory=LowRank)

    @property
    def name(self) -> str:
        """The column's name."""
        return f"{KINDS['refined'].prefix}{self.model}"

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights."""
        return {
            **clip_spec(self.model, self.weights, "nearest multiple of the patch"),
            "producer": "refiner/2",
            "refiner": weights_id(self.refiner),
            "target": {"name": "refined", "views": self.views, "seed": self.seed, "side": self.side},
            "codec": self.codec.spec,
        }

    def info(self) -> ColumnInfo:
        """See `TeacherConfig.info`; `refiner` is the source of the Refiner's own weights."""
        return refiner_info(self.weights, self.refiner)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`. A live Refiner sees the boxes of one view at each visit."""
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
        """Returns the views whose boxes are refined, (K,) int32."""
        return stored_views(photo.key, photo.regions.n_views, self.views, self.seed)

    def load(self, device: str) -> RefinedTeacher:
        """See `TeacherConfig.load`."""
        return RefinedTeacher(self, device)


@dataclass(frozen=True, kw_only=True)
class RefinedMapConfig:
    """A Refiner that runs over the whole photo as one region, before it is loaded.

    Attributes:
        model: Name or alias of the CLIP, or name of the VFM.
        weights: Its weights, a path or random:SEED.
        refiner: The Refiner's own weights, a path or random:SEED.
        codec: How the factors are stored.
    """

    model: str
    weights: str
    refiner: str
    codec: LowRank = field(default_factory=LowRank)

    @property
    def name(self) -> str:
        """The column's name."""
        return f"{KINDS['refined-map'].prefix}{self.model}"

    def spec(self) -> TeacherSpec:
        """See `TeacherConfig.spec`. Digests the weights."""
        return {
            **clip_spec(self.model, self.weights, "nearest multiple of the patch"),
            "producer": "refined-map/1",
            "refiner": weights_id(self.refiner),
            "target": {"name": "refined-map"},
            "codec": self.codec.spec,
        }

    def info(self) -> ColumnInfo:
        """See `RefinedConfig.info`."""
        return refiner_info(self.weights, self.refiner)

    def cost(self, photo: Photo) -> Cost:
        """See `TeacherConfig.cost`."""
        return map_cost(refined_map_forward(self.model, photo.canvas.size), self.codec)

    def load(self, device: str) -> TokenTeacher:
        """See `TeacherConfig.load`."""
        refiner = load_refiner(self.model, self.weights, self.refiner, device)
        return TokenTeacher(
            name=self.name,
            device=device,
            codec=self.codec,
            forward=lambda inputs: refiner.dense(refiner.encoder.prepare(inputs)),
        )


def refiner_info(weights: str, refiner: str) -> ColumnInfo:
    """Returns the sources of a network's and its Refiner's weights, and whether any are random."""
    encoder, own = weights_info(weights), weights_info(refiner)
    random = encoder["random_weights"] or own["random_weights"]
    return {**encoder, "refiner": own["weights"], "random_weights": random}


class RefinedTeacher:
    """The network and its Refiner on their device."""

    def __init__(self, config: RefinedConfig, device: str) -> None:
        self.config = config
        self.name = config.name
        self.device = torch.device(device)
        self.model = load_refiner(config.model, config.weights, config.refiner, device)

    def inputs(self, photo: Photo) -> np.ndarray:
        """Returns the canvas, (1, S, S, 3) uint8."""
        return photo.padded()[None]

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the tokens (B, 2 C, h, w) that the Refiner starts from, of canvases (B, 3, S, S)."""
        return self.model.entry(self.model.encoder.prepare(inputs))

    def targets(self, photos: Sequence[Photo], outputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns for each photo the unit tokens of the boxes of its stored views, (M, side * side, D)."""
        of_photos = [self._boxes(photo) for photo in photos]
        boxes, of_image = boxes_of(of_photos, self.device)
        entry = torch.cat(list(outputs))
        # The boxes of all photos share batches: those of one photo seldom fill the last of its own.
        parts = [
            self.model.refine(entry, *part, self.config.side)
            for part in zip(
                torch.split(boxes, BOXES_PER_BATCH), torch.split(of_image, BOXES_PER_BATCH), strict=True
            )
        ]
        return list(torch.cat(parts).split([len(boxes) for boxes in of_photos]))

    def _boxes(self, photo: Photo) -> np.ndarray:
        """(M, 4) boxes of the stored views, view by view."""
        regions = photo.regions
        cells = [cell for view in self.config.stored_views(photo) for cell in regions.view(view)]
        boxes: np.ndarray = regions.boxes[np.array(cells, int)]
        return boxes

    def reduce(self, targets: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Returns for each photo the figures and the arrays of its boxes, see `encode_maps`.

        The tokens themselves where the codec needs a full decomposition, which is for the CPU.
        """
        boxes = torch.cat(list(targets))
        if self.config.codec.method == "eigh" or not len(boxes):
            return [(target,) for target in targets]
        counts = [len(target) for target in targets]
        of_boxes = zip(*encode_maps(self.config.codec, boxes), strict=True)
        return list(zip(*(torch.stack(part).split(counts) for part in of_boxes), strict=True))

    def encode(self, photo: Photo, *parts: np.ndarray) -> tuple[Arrays, Errors]:
        """Makes the stored arrays of what `reduce` returned.

        Returns:
            The codec's arrays, box after box, with `views` (K,) int32; and the errors of the boxes' Gram
            matrices.
        """
        if len(parts) == 1:
            arrays, error = self._encode_tokens(parts[0])
        else:
            figures, *coded = parts
            arrays = {
                name: of_boxes.reshape(-1, *of_boxes.shape[2:])
                for name, of_boxes in zip(array_names(self.config.codec), coded, strict=True)
            }
            # A photo without boxes has errors of zero.
            figures = figures if len(figures) else np.zeros((1, figures.shape[1]))
            error = combine_errors([errors_of(self.config.codec, of_box) for of_box in figures])
        return {**arrays, "views": self.config.stored_views(photo)}, error

    def _encode_tokens(self, target: np.ndarray) -> tuple[Arrays, Errors]:
        """Encodes unit tokens (M, side * side, D)."""
        # A photo without boxes gets arrays of the same types as other photos, but without rows.
        boxes = target if len(target) else np.zeros((1, *target.shape[1:]), np.float32)
        coded, errors = zip(*map(self.config.codec.encode, boxes), strict=True)
        rank = max(arrays["x"].shape[1] for arrays in coded)
        joined = {
            name: np.concatenate([_widened(arrays[name], rank) for arrays in coded])[: target[..., 0].size]
            for name in coded[0]
        }
        return joined, combine_errors(list(errors))


def _widened(array: np.ndarray, rank: int) -> np.ndarray:
    """Pads (L, r) to (L, rank) with zeros, which do not change the Gram matrix; returns (L,) unchanged."""
    return np.pad(array, [(0, 0), (0, rank - array.shape[1])]) if array.ndim == 2 else array


def _configure(model: str, settings: BuildConfig) -> RefinedConfig:
    return RefinedConfig(
        model=model,
        weights=weights_for(model, settings),
        refiner=_refiner_of(model, settings),
        views=settings.views,
        seed=settings.seed,
        side=settings.side,
        codec=factor_codec(LowRank, settings, default_rank=RANK),
    )


def _configure_map(model: str, settings: BuildConfig) -> RefinedMapConfig:
    return RefinedMapConfig(
        model=model,
        weights=weights_for(model, settings),
        refiner=_refiner_of(model, settings),
        codec=factor_codec(LowRank, settings, default_rank=SELF_RANK),
    )


def _refiner_of(model: str, settings: BuildConfig) -> str:
    """The weights of a model's Refiner in a build: an absolute path, or random:SEED."""
    name = f"{KINDS['refined'].prefix}{model}"
    weights = given_for(name, settings.weights) or _find_refiner(name, model, settings)
    return absolute_weights(name, weights, settings)


def _names(model: str) -> dict[str, str]:
    """The names of both weights; see `TeacherFamily.weights`."""
    return {"weights": model, "refiner": f"{KINDS['refined'].prefix}{model}"}


def _has_model(name: str) -> bool:
    return is_clip(name) or is_vfm(name)


def _find_refiner(name: str, model: str, settings: BuildConfig) -> str:
    """The file of a model's Refiner, in the folder of weights or of the store's own run of train-refiner.

    Raises:
        DenseCLIError: There is none; the hint says how to train one.
    """
    arch = architecture_of(model).name
    store = settings.store_url
    trained = Path(default_run(arch, store), "export", WEIGHTS)
    try:
        return str(find_file(name, f"{KINDS['refined'].prefix}{arch}"))
    except DenseCLIError as error:
        if trained.is_file():
            return str(trained)
        raise DenseCLIError(
            f"{str(error).removesuffix('.')}, and no {trained}.",
            hint=f"Train it, or give it as --weights {name}=RUN/export/{WEIGHTS}:",
            commands=[shlex.join(["densecli", "train-refiner", "--student", arch, "--store", store])],
        ) from None


TEACHERS.add(
    "refined",
    TeacherFamily(
        kind="refined",
        models=lambda: [*clip_names(), *VFMS],
        has_model=_has_model,
        configure=_configure,
        weights=_names,
    ),
    help="A Refiner's tokens of each box, for their correlations (R-SC-CLIPSelf, R-SC-V).",
    needs=NEEDS,
)
TEACHERS.add(
    "refined-map",
    TeacherFamily(
        kind="refined-map",
        models=lambda: [*clip_names(), *VFMS],
        has_model=_has_model,
        configure=_configure_map,
        weights=_names,
    ),
    help="A Refiner's tokens of the whole photo, for their correlations (R-SC, table 14).",
    needs=NEEDS,
)
