"""Region classification on panoptic ground truth: Boxes, Masks-T, Masks-S, and stuff taken for a thing.

The protocol of CLIPSelf (Wu et al., ICLR 2024), which DenseVLM and DeCLIP follow. Boxes of things are pooled
by RoIAlign, masks of things and stuff by the mean of their unit tokens. A region is assigned the class with
the nearest text embedding. As an upper bound, each segment's own crop goes through the whole image encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.evaluation.batches import batches
from densecli.evaluation.config import ClassifyConfig
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.region_counts import Classification, PhotoCounts, RegionCounts, count, summarize
from densecli.models.dense import DenseCLIP
from densecli.models.pooling import mask_pool, region_pool, token_masks
from densecli.shards.geometry import Canvas

CROPS_AT_ONCE = 64
THING_CONTEXT = 1.5


@dataclass(frozen=True, kw_only=True)
class RegionScores:
    """Cosines of the N segments of some photos with D classes, float32.

    Attributes:
        boxes: (T, D), of the boxes of the T segments that are things.
        masks: (N, D), of the masks of all segments; 0 for every class where a mask covers no token.
        labels: (N,) true classes.
        things: (N,) whether each segment is a thing.
        areas: (N,) pixels of the photo.
        skipped: Number of segments that were left out because of their box area.
    """

    boxes: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    things: np.ndarray
    areas: np.ndarray
    skipped: int


def classify(
    model: DenseCLIP,
    dataset: PanopticDataset,
    text: torch.Tensor,
    weights: str,
    config: ClassifyConfig,
    processes: Distributed,
    *,
    random_weights: bool = False,
    silent: bool = False,
) -> Classification:
    """Classifies every segment of a data set by its nearest text embedding.

    Args:
        model: The model, on the device of `text`.
        dataset: Photos with their segments.
        text: (D, C) embeddings of the data set's D categories.
        weights: Where the model's weights are from.
        config: Canvas, mode and box limits.
        processes: The processes that share the photos; each gets the result for all photos.
        random_weights: Whether the weights, or those of a teacher behind them, began as random ones.
        silent: Whether to show no progress.

    Raises:
        DenseCLIError: The embeddings do not fit the model and the categories, or a feature is not finite.
    """
    own = count_regions(model, dataset, text, config, processes, silent=silent)
    first, *others = processes.gather(own)
    return summarize(sum(others, first), dataset.categories, weights, random_weights=random_weights)


def count_regions(
    model: DenseCLIP,
    dataset: PanopticDataset,
    text: torch.Tensor,
    config: ClassifyConfig,
    processes: Distributed,
    *,
    silent: bool = False,
) -> PhotoCounts:
    """Counts the predicted classes of this process's segments; see `region_scores`."""
    blank = RegionCounts.empty(len(text))
    counts = PhotoCounts(boxes=blank, masks=blank, skipped=0)
    for scores in region_scores(model, dataset, text, config, processes, silent=silent):
        labels, areas, things = scores.labels, scores.areas, scores.things
        counts += PhotoCounts(
            boxes=count(scores.boxes, labels[things], areas[things]),
            masks=count(scores.masks, labels, areas),
            skipped=scores.skipped,
        )
    return replace(counts, absent=dataset.absent)


@torch.inference_mode()
def region_scores(
    model: DenseCLIP,
    dataset: PanopticDataset,
    text: torch.Tensor,
    config: ClassifyConfig,
    processes: Distributed,
    *,
    silent: bool = False,
) -> Iterator[RegionScores]:
    """Yields the scores of this process's segments, a batch of photos at a time; see `classify`."""
    expected = (len(dataset.categories.names), model.embed_dim)
    if tuple(text.shape) != expected:
        raise DenseCLIError(
            f"The text embeddings are {tuple(text.shape)}, the categories and the model need {expected}.",
            hint="Give --text-embeddings of this category set, made with this architecture's text tower.",
        )
    text = F.normalize(text.float(), dim=-1)
    tokens = model.input_side(config.canvas) // model.patch_size
    crop_side = model.arch.native_side if config.crops else 0

    def prepare(i: int) -> _Prepared:
        return _prepare(dataset, i, tokens, crop_side, config)

    was_training = model.training
    model.eval()
    for batch in batches(prepare, len(dataset), config.batch_size, processes, silent=silent):
        yield _score(model, batch, text, config)
    model.train(was_training)


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """One photo with n segments.

    Attributes:
        pixels: uint8, (S, S, 3) of the canvas or (n, s, s, 3) of the segments' crops.
        boxes: (n, 4) normalised to the canvas.
        masks: bool (n, t, t) on the token grid.
        labels: (n,) classes.
        things: (n,) whether each segment is a thing.
        areas: (n,) pixels of the photo.
        skipped: Number of segments that were left out.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    masks: torch.Tensor
    labels: np.ndarray
    things: np.ndarray
    areas: np.ndarray
    skipped: int


def _score(
    model: DenseCLIP, batch: list[_Prepared], text: torch.Tensor, config: ClassifyConfig
) -> RegionScores:
    of_boxes, of_masks = (_encode_crops if config.crops else _pool)(model, batch, text.device, config.mode)
    return RegionScores(
        boxes=(of_boxes @ text.T).cpu().numpy(),
        masks=(of_masks @ text.T).cpu().numpy(),
        labels=np.concatenate([p.labels for p in batch]),
        things=np.concatenate([p.things for p in batch]),
        areas=np.concatenate([p.areas for p in batch]),
        skipped=sum(p.skipped for p in batch),
    )


def _pool(
    model: DenseCLIP, batch: list[_Prepared], device: torch.device, mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features of the things' boxes and of all masks."""
    pixels = torch.from_numpy(np.stack([p.pixels for p in batch])).permute(0, 3, 1, 2)
    things = np.concatenate([p.things for p in batch])
    owner = np.repeat(np.arange(len(batch)), [len(p.labels) for p in batch])
    boxes = torch.from_numpy(np.concatenate([p.boxes for p in batch])[things]).to(device)
    masks = torch.cat([p.masks for p in batch]).to(device)
    dense = model.dense(model.prepare(pixels.to(device)), mode=mode)
    of_boxes = region_pool(dense, boxes, torch.from_numpy(owner[things]).to(device))
    return of_boxes, mask_pool(dense, masks, torch.from_numpy(owner).to(device))


def _encode_crops(
    model: DenseCLIP, batch: list[_Prepared], device: torch.device, _mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """CLIP's unit embeddings of the crops of things and of all segments; the mode does not matter."""
    crops = torch.from_numpy(np.concatenate([p.pixels for p in batch])).permute(0, 3, 1, 2)
    # A batch without segments has one empty part.
    parts = [
        model.encode_image(model.prepare(part.to(device))).float()
        if len(part)
        else torch.zeros(0, model.embed_dim, device=device)
        for part in crops.split(CROPS_AT_ONCE)
    ]
    features = F.normalize(torch.cat(parts), dim=1)
    things = np.concatenate([p.things for p in batch])
    return features[torch.from_numpy(things).to(device)], features


def _prepare(
    dataset: PanopticDataset, i: int, tokens: int, crop_side: int, config: ClassifyConfig
) -> _Prepared:
    canvas = Canvas(config.canvas)
    sample = dataset[i]
    width, height = sample.photo.size
    kept = [s for s in sample.segments if config.min_side**2 <= _box_area(s.box) <= config.max_side**2]
    boxes = np.array([s.box for s in kept], np.float32).reshape(-1, 4)
    masks = np.array([s.mask for s in kept], bool).reshape(-1, height, width)
    if config.crops:
        pixels = segment_crops(np.asarray(sample.photo), boxes, [s.thing for s in kept], crop_side)
    else:
        pixels = canvas.pad(np.asarray(canvas.resize(sample.photo)))
    return _Prepared(
        pixels=pixels,
        boxes=canvas.to_canvas(boxes, width, height),
        masks=token_masks(masks, tokens),
        labels=np.array([s.category for s in kept], np.int64),
        things=np.array([s.thing for s in kept], bool),
        areas=np.array([s.area for s in kept], np.int64),
        skipped=len(sample.segments) - len(kept),
    )


def segment_crops(photo: np.ndarray, boxes: np.ndarray, things: Sequence[bool], side: int) -> np.ndarray:
    """Crops the segments of a photo as the released code of CLIPSelf does for its upper bound.

    Args:
        photo: (h, w, 3) uint8.
        boxes: (n, 4) xyxy in pixels of the photo.
        things: Whether each segment is a thing: things are cropped at 1.5 times their box, stuff at its box.
        side: Side of the crops in pixels.

    Returns:
        (n, side, side, 3) uint8.
    """
    whole = Canvas(max(photo.shape[:2]))
    of_canvas = whole.to_canvas(boxes, photo.shape[1], photo.shape[0])
    crops = [
        whole.crop(photo, box, side, THING_CONTEXT if thing else 1.0)
        for box, thing in zip(of_canvas, things, strict=True)
    ]
    return np.array(crops, np.uint8).reshape(-1, side, side, 3)


def _box_area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
