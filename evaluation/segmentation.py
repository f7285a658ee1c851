"""Semantic segmentation from dense features: every pixel gets the class with the nearest text embedding.

The protocol of SCLIP, ClearCLIP and ProxyCLIP, without training or a mask decoder. A window slides over the
photo; the cosines of overlapping windows are averaged and enlarged to the photo. mIoU is MMSegmentation's:
the intersection and the union of a class are summed over the whole split.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.evaluation.batches import batches
from densecli.evaluation.benchmarks import Classes
from densecli.evaluation.config import SegmentationConfig
from densecli.evaluation.region_counts import require_finite
from densecli.evaluation.semantic import Labelled
from densecli.models.dense import DenseCLIP
from densecli.shards.geometry import RESAMPLE

QUERIES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class ClassIoU:
    """The IoU of one class in percent, and how many pixels of the ground truth it has."""

    name: str
    iou: float
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The result of segmentation, in percent. Classes that are neither annotated nor predicted do not count.

    Attributes:
        miou: Mean IoU over classes.
        pixel_accuracy: Share of pixels with the right class.
        mean_accuracy: Mean over the annotated classes of the share of their pixels that are right.
        photos: Number of photos.
        classes: One row for each class.
    """

    miou: float
    pixel_accuracy: float
    mean_accuracy: float
    photos: int
    classes: tuple[ClassIoU, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def segment(
    model: DenseCLIP, dataset: Labelled, text: Tensor, config: SegmentationConfig, processes: Distributed
) -> Segmentation:
    """Segments the photos of a data set.

    Args:
        model: The model under test.
        dataset: Labelled photos.
        text: (Q, D) unit embeddings of the prompts of all classes, in order.
        config: Sides, windows, and how scores become classes.
        processes: The processes that share the photos; each gets the result for all photos.

    Raises:
        DenseCLIError: The windows do not tile the photos, or a feature is not finite.
    """
    if not config.stride <= config.window <= config.side:
        raise DenseCLIError(
            f"Windows of {config.window} px every {config.stride} px do not tile photos of {config.side} px.",
            hint="Give a --stride of at most --window, and a --window of at most --side.",
        )
    names = dataset.classes.names
    counts = torch.zeros(len(names) ** 2, dtype=torch.int64, device=processes.device)
    for (found,) in batches(dataset.__getitem__, len(dataset), 1, processes):
        scores = window_scores(model, found.photo, text, config)
        require_finite(scores)
        predicted = predict(scores, dataset.classes, found.labels.shape, config)
        pairs = count_pairs(torch.from_numpy(found.labels), predicted, len(names))
        counts += pairs.to(counts)
    total = processes.add(counts).view(len(names), -1).cpu().numpy()
    return confusion_to_metrics(total, names, photos=len(dataset))


def window_scores(model: DenseCLIP, photo: Image.Image, text: Tensor, config: SegmentationConfig) -> Tensor:
    """(Q, h, w) cosines of each pixel of the resized photo with each prompt, averaged over its windows."""
    scale = config.side / min(photo.size)
    size = (max(config.side, round(photo.width * scale)), max(config.side, round(photo.height * scale)))
    pixels = torch.from_numpy(np.asarray(photo.resize(size, RESAMPLE)).copy()).permute(2, 0, 1)
    side = config.window
    columns, rows = (offsets(length, side, config.stride) for length in size)
    corners = [(y, x) for y in rows for x in columns]
    total = torch.zeros(len(text), size[1], size[0], device=text.device)
    count = torch.zeros(size[1], size[0], device=text.device)
    for start in range(0, len(corners), config.batch_size):
        batch = corners[start : start + config.batch_size]
        views = torch.stack([pixels[:, y : y + side, x : x + side] for y, x in batch]).to(text.device)
        dense = F.normalize(model.dense(model.prepare(views), mode=config.mode).float(), dim=1)
        cosines = torch.einsum("qd,bdhw->bqhw", text, dense)
        cosines = F.interpolate(cosines, size=(side, side), mode="bilinear")
        for (y, x), found in zip(batch, cosines, strict=True):
            total[:, y : y + side, x : x + side] += found
            count[y : y + side, x : x + side] += 1
    return total / count


def offsets(length: int, window: int, stride: int) -> list[int]:
    """Starts of windows that cover `length`: one every `stride`, the last one moved back so that it fits."""
    return [*range(0, length - window, stride), length - window]


def predict(scores: Tensor, classes: Classes, size: Sequence[int], config: SegmentationConfig) -> Tensor:
    """(Q, h, w) cosines with the classes' prompts -> (H, W) = `size` int64 classes, on the CPU.

    The score of a class is that of its best prompt. See `SegmentationConfig.threshold`.
    """
    owners = torch.tensor([c for c, names in enumerate(classes.prompts) for _ in names], device=scores.device)
    best = torch.full(tuple(size), -torch.inf, device=scores.device)
    prompt = torch.zeros(tuple(size), dtype=torch.int64, device=scores.device)
    mass = best.clone()
    # All prompts at once, at the photo's own size, would take gigabytes.
    for start in range(0, len(scores), QUERIES_AT_ONCE):
        part = scores[start : start + QUERIES_AT_ONCE]
        part = F.interpolate(part[None], size=tuple(size), mode="bilinear")[0] * config.scale
        mass = torch.logaddexp(mass, part.logsumexp(0))
        most, which = part.max(0)
        prompt = torch.where(most > best, which + start, prompt)
        best = torch.maximum(best, most)
    predicted = owners[prompt]
    if classes.background is not None:
        predicted[(best - mass).exp() < config.threshold] = classes.background
    return predicted.cpu()


def count_pairs(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """(classes^2,) counts of pairs of true and predicted class, without pixels of a negative true class."""
    kept = truth >= 0
    return torch.bincount(truth[kept].long() * classes + predicted[kept], minlength=classes**2)


def confusion_to_metrics(counts: np.ndarray, names: Sequence[str], *, photos: int) -> Segmentation:
    """Computes the figures from (D, D) pixel counts with a row for each true class.

    Raises:
        DenseCLIError: No pixel has a class.
    """
    if not counts.sum():
        raise DenseCLIError(
            "No pixel of the photos has a class.", hint="Give another --split or a higher --limit."
        )
    hits, true, given = np.diag(counts), counts.sum(1), counts.sum(0)
    present = np.flatnonzero(true + given)
    iou = 100 * hits[present] / (true + given - hits)[present]
    return Segmentation(
        miou=float(iou.mean()),
        pixel_accuracy=float(100 * hits.sum() / counts.sum()),
        mean_accuracy=float(np.mean(100 * hits[true > 0] / true[true > 0])),
        photos=photos,
        classes=tuple(
            ClassIoU(name=names[c], iou=float(value), pixels=int(true[c]))
            for c, value in zip(present.tolist(), iou, strict=True)
        ),
    )
