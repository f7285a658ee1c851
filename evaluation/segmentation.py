"""Semantic segmentation from features: every pixel is the class whose text is nearest to its token.

The protocol of SCLIP, ClearCLIP and ProxyCLIP: a window slides over the photo, cosines of overlapping windows
are averaged, enlarged to the photo, and compared; no training, no mask decoder. mIoU is over the whole split
(MMSegmentation's): of a class, pixels it is given rightly over pixels that are it or are given it.
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
    """One class that the truth or the prediction names; percent. pixels: those that are it."""

    name: str
    iou: float
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What segmentation found, in percent. Classes neither true nor predicted anywhere do not count.

    mean_accuracy: of each class that the truth has, the share of its pixels found; its mean.
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
    """Segmentation of a dataset; text: (Q, D) unit embeddings of its classes' prompts, in their order.

    Each process takes its share of the photos and gets the result of all of them. Raises DenseCLIError for
    windows that do not tile the photos, and for features that are not finite.
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
    """(Q, h, w) cosines of each pixel of the resized photo with each prompt, the mean over its windows."""
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
    """Where windows begin so that they cover `length`: every `stride`, the last one moved back to fit in."""
    return [*range(0, length - window, stride), length - window]


def predict(scores: Tensor, classes: Classes, size: Sequence[int], config: SegmentationConfig) -> Tensor:
    """(Q, h, w) cosines with the classes' prompts -> (H, W) = `size` int64 classes, on the CPU.

    A class scores as its best prompt. See `SegmentationConfig.threshold`.
    """
    owners = torch.tensor([c for c, names in enumerate(classes.prompts) for _ in names], device=scores.device)
    best = torch.full(tuple(size), -torch.inf, device=scores.device)
    prompt = torch.zeros(tuple(size), dtype=torch.int64, device=scores.device)
    mass = best.clone()
    # All prompts at the photo's own size would be gigabytes.
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
    """Classes of pixels, negative ones of the truth ignored -> (classes^2,) how often each pair occurs."""
    kept = truth >= 0
    return torch.bincount(truth[kept].long() * classes + predicted[kept], minlength=classes**2)


def confusion_to_metrics(counts: np.ndarray, names: Sequence[str], *, photos: int) -> Segmentation:
    """(D, D) pixels, rows the truth -> figures. Raises DenseCLIError where no pixel has a class."""
    if not counts.sum():
        raise DenseCLIError(
            "No pixel of the photos has a class.", hint="Give another split or a higher --limit."
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
