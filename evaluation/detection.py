"""Open-vocabulary detection without a detector: given boxes get categories, and are ranked.

A box is pooled from the dense map by RoIAlign, and its categories are ranked by the softmax of
`scale` x cosine with the text embeddings, which is the score that F-ViT takes from the frozen CLIP (Wu et
al., CLIPSelf, ICLR 2024). There is no detector: no box is found or moved, and no score says whether a box
holds an object at all. On annotated boxes AP is therefore an upper bound that only classification lowers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from densecli.core.distributed import Distributed
from densecli.core.pictures import read_photo
from densecli.evaluation.average_precision import RankedBoxes, average_precisions
from densecli.evaluation.batches import batches
from densecli.evaluation.config import DetectionConfig
from densecli.evaluation.given_boxes import GivenBoxes
from densecli.evaluation.instances import Instances, check_size
from densecli.evaluation.panoptic import NEEDED
from densecli.evaluation.region_counts import require_finite
from densecli.models.dense import DenseCLIP
from densecli.models.pooling import region_pool
from densecli.shards.geometry import Canvas

RANKED, RANKED_LVIS = 100, 300
"""Ranked boxes of a photo that count, as in the evaluations of COCO and of LVIS."""
CANDIDATES = 10_000
"""Pairs of box and category of a photo, the best ones, from which overlapping ones are dropped."""


@dataclass(frozen=True, kw_only=True)
class CategoryAP:
    """The AP of a category in percent, None without an annotated box, and how many boxes are annotated."""

    name: str
    group: str
    ap50: float | None
    ap: float | None
    boxes: int


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The result, in percent: means over the categories with an annotated box.

    Attributes:
        ap50: AP at IoU 0.5 of each group; that of all categories has the name "".
        ap: Mean AP at IoU 0.50 to 0.95, in the same way.
        photos: Number of photos.
        boxes: Number of boxes that were classified.
        annotated: Number of annotated boxes, without crowds.
        categories: One row for each category.
    """

    ap50: dict[str, float | None]
    ap: dict[str, float | None]
    photos: int
    boxes: int
    annotated: int
    categories: tuple[CategoryAP, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; a group's figures are named such as ap50_novel."""
        figures = {
            f"{figure}_{group}".rstrip("_"): value
            for figure, values in (("ap50", self.ap50), ("ap", self.ap))
            for group, value in values.items()
        }
        rows = [vars(row) for row in self.categories]
        counts = {"photos": self.photos, "boxes": self.boxes, "annotated": self.annotated}
        return {**figures, **counts, "categories": rows}


@torch.inference_mode()
def rank_boxes(
    model: DenseCLIP,
    instances: Instances,
    given: GivenBoxes,
    text: Tensor,
    config: DetectionConfig,
    processes: Distributed,
) -> list[RankedBoxes]:
    """Ranks the categories of the given boxes of every photo.

    Args:
        model: The model under test.
        instances: Photos with annotated boxes.
        given: The boxes that are ranked.
        text: (D, C) unit embeddings of the categories.
        config: Canvas, mode, and how scores are made.
        processes: The processes that share the photos; each gets the result for all photos.

    Raises:
        DenseCLIError: A photo cannot be read or has another size than annotated, or a feature is not finite.
    """
    canvas = Canvas(config.canvas)
    ranked = config.max_boxes or (RANKED_LVIS if instances.categories.lvis else RANKED)
    overlap = config.nms if given.proposed else None
    # A photo without a box need not be read.
    seen = [i for i, boxes in enumerate(given.boxes) if len(boxes)]

    def prepare(place: int) -> tuple[int, np.ndarray, np.ndarray]:
        photo = instances.photos[seen[place]]
        image = read_photo(photo.path, NEEDED)
        check_size(photo, image.size)
        boxes = canvas.to_canvas(given.boxes[seen[place]], *image.size)
        return seen[place], canvas.pad(np.asarray(canvas.resize(image))), boxes

    own = {}
    for batch in batches(prepare, len(seen), config.batch_size, processes):
        pixels = torch.from_numpy(np.stack([pixels for _, pixels, _ in batch])).permute(0, 3, 1, 2)
        dense = model.dense(model.prepare(pixels.to(text.device)), mode=config.mode)
        counts = [len(boxes) for _, _, boxes in batch]
        owner = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor(counts))
        boxes = torch.from_numpy(np.concatenate([boxes for _, _, boxes in batch]))
        cosines = region_pool(dense, boxes.to(text.device), owner.to(text.device)) @ text.T
        require_finite(cosines)
        scores = (config.scale * cosines).softmax(1).cpu()
        for (i, _, _), of_photo in zip(batch, scores.split(counts), strict=True):
            own[i] = best_of(given.boxes[i], of_photo, ranked, overlap)
    nothing = best_of(np.zeros((0, 4)), torch.zeros(0, len(text)), ranked, overlap)
    everything = {i: each for part in processes.gather(own) for i, each in part.items()}
    return [everything.get(i, nothing) for i in range(len(instances.photos))]


def best_of(boxes: np.ndarray, scores: Tensor, ranked: int, overlap: float | None) -> RankedBoxes:
    """The best pairs of box and category of a photo.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, D) on the CPU.
        ranked: Number of pairs.
        overlap: A pair is dropped if its box overlaps that of a better one of the same category by more than
            this IoU; None drops none.
    """
    flat = scores.flatten()
    order = flat.argsort(descending=True, stable=True)[: max(ranked, CANDIDATES)]
    box, category = order // scores.shape[1], order % scores.shape[1]
    if overlap is not None and len(order):
        kept = batched_nms(torch.from_numpy(boxes)[box].float(), flat[order], category, overlap)
        order, box, category = order[kept], box[kept], category[kept]
    return RankedBoxes(
        boxes=boxes[box[:ranked].numpy()],
        categories=category[:ranked].numpy(),
        scores=flat[order[:ranked]].numpy(),
    )


def measure_ranking(instances: Instances, given: GivenBoxes, ranked: Sequence[RankedBoxes]) -> Detection:
    """Computes the figures of ranked boxes by COCOeval; see `average_precisions`."""
    categories = instances.categories
    aps = 100 * average_precisions(instances.photos, ranked, len(categories.ids))
    groups = np.array(categories.groups)
    counts = np.zeros(len(groups), np.int64)
    for photo in instances.photos:
        np.add.at(counts, photo.categories[~photo.crowds], 1)
    among = {"": groups == groups} | {name: groups == name for name in dict.fromkeys(categories.groups)}
    rows = [
        CategoryAP(name=name, group=group, ap50=_mean(row[:1]), ap=_mean(row), boxes=int(count))
        for name, group, row, count in zip(categories.names, categories.groups, aps, counts, strict=True)
    ]
    return Detection(
        ap50={name: _mean(aps[of, :1]) for name, of in among.items()},
        ap={name: _mean(aps[of]) for name, of in among.items()},
        photos=len(instances.photos),
        boxes=sum(map(len, given.boxes)),
        annotated=int(counts.sum()),
        categories=tuple(rows),
    )


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
