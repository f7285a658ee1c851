"""Region classification on panoptic ground truth: Boxes, Masks-T, Masks-S and the stuff called a thing.

The protocol of CLIPSelf (Wu et al., ICLR 2024), kept by DenseVLM and DeCLIP: thing boxes are pooled by
RoIAlign, thing and stuff masks by their mean over unit tokens, and a region is the class whose text
embedding is nearest among all classes. `region_scores` runs a model, `scores_to_metrics` is arithmetic
alone.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F

from evaluation.panoptic import PanopticDataset
from models.categories import Categories
from models.dense import DenseCLIP
from models.pooling import mask_pool, region_pool, token_masks
from shards.errors import DenseCLIError
from shards.geometry import Canvas
from shards.progress import Progress


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """How to classify regions.

    `canvas` is the side in pixels, `mode` the reading of the last block. Segments whose box has an area
    outside [min_side^2, max_side^2] are left out, in pixels of the *photo*: the released code compares the
    annotated box before it scales it to the canvas.
    """

    canvas: int = 512
    mode: str = "value"
    batch_size: int = 8
    min_side: int = 8
    max_side: int = 1024


@dataclass(frozen=True, kw_only=True)
class RegionScores:
    """Cosine scores of regions against D classes, float32.

    `boxes` (T, D) and `box_labels` (T,) are the thing segments', `masks` (N, D) and `mask_labels` (N,)
    those of all segments. `skipped` segments were left out by box area; `vanished` ones have no token in
    their mask, and score 0 for every class.
    """

    boxes: np.ndarray
    box_labels: np.ndarray
    masks: np.ndarray
    mask_labels: np.ndarray
    skipped: int
    vanished: int


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class that is present; percent, and for stuff no box figures (None)."""

    name: str
    thing: bool
    segments: int
    boxes_top1: float | None
    boxes_top5: float | None
    masks_top1: float | None
    masks_top5: float | None


@dataclass(frozen=True, kw_only=True)
class Classification:
    """What region classification found, in percent; None where the data has no such segment.

    Accuracies are means over the classes present, `stuff_as_thing` is the share of stuff segments whose
    mask is nearest to a thing. `weights` is where the weights came from, and holds `random:SEED` if that is
    where they began.
    """

    boxes_top1: float | None
    boxes_top5: float | None
    masks_thing_top1: float | None
    masks_thing_top5: float | None
    masks_stuff_top1: float | None
    masks_stuff_top5: float | None
    stuff_as_thing: float | None
    things: int
    stuffs: int
    skipped: int
    vanished: int
    classes: tuple[ClassRow, ...]
    weights: str

    @property
    def random_weights(self) -> bool:
        return "random:" in self.weights

    def to_dict(self) -> dict:
        return asdict(self) | {"random_weights": self.random_weights}


def classify(
    model: DenseCLIP,
    dataset: PanopticDataset,
    text: torch.Tensor,
    weights: str,
    config: ClassifyConfig | None = None,
) -> Classification:
    """Region classification of `dataset` by `model`, `text` (D, C) being the embeddings of its D categories.

    Runs on the device of `text`. DenseCLIError if the embeddings do not fit or a feature is not finite.
    """
    scores = region_scores(model, dataset, text, config or ClassifyConfig())
    return scores_to_metrics(scores, dataset.categories, weights)


@torch.inference_mode()
def region_scores(
    model: DenseCLIP, dataset: PanopticDataset, text: torch.Tensor, config: ClassifyConfig
) -> RegionScores:
    """Pool and score every segment of `dataset`; see `classify`."""
    expected = (len(dataset.categories.names), model.embed_dim)
    if tuple(text.shape) != expected:
        raise DenseCLIError(
            f"The text embeddings are {tuple(text.shape)}, the categories and the model need {expected}.",
            hint="Use embeddings of this category set, made with this architecture's text tower.",
        )
    text = F.normalize(text.float(), dim=-1)
    tokens = model.input_side(config.canvas) // model.patch_size

    def prepare(i: int) -> "_Prepared":
        return _prepare(dataset, i, tokens, config)

    parts = []
    was_training = model.training
    model.eval()
    with closing(Progress(len(dataset), "photos")) as progress:
        for batch in _batches(prepare, len(dataset), config.batch_size):
            parts.append(_score(model, batch, text, config.mode))
            progress.advance(len(batch))
    model.train(was_training)
    return RegionScores(
        boxes=np.concatenate([part.boxes for part in parts]),
        box_labels=np.concatenate([part.box_labels for part in parts]),
        masks=np.concatenate([part.masks for part in parts]),
        mask_labels=np.concatenate([part.mask_labels for part in parts]),
        skipped=sum(part.skipped for part in parts),
        vanished=sum(part.vanished for part in parts),
    )


def scores_to_metrics(scores: RegionScores, categories: Categories, weights: str) -> Classification:
    """Accuracies from scores. A tie counts against the true class, so a vanished segment is a miss."""
    if not (np.isfinite(scores.boxes).all() and np.isfinite(scores.masks).all()):
        raise DenseCLIError(
            "The model gives features that are not finite.",
            hint="The weights are damaged or the training diverged: use an earlier checkpoint.",
        )
    thing = categories.thing_flags()
    box_ranks = true_class_ranks(scores.boxes, scores.box_labels)
    mask_ranks = true_class_ranks(scores.masks, scores.mask_labels)
    rows = []
    for c in np.unique(scores.mask_labels):
        of_boxes, of_masks = box_ranks[scores.box_labels == c], mask_ranks[scores.mask_labels == c]
        rows.append(
            ClassRow(
                name=categories.names[c],
                thing=bool(thing[c]),
                segments=len(of_masks),
                boxes_top1=_percent(of_boxes < 1),
                boxes_top5=_percent(of_boxes < 5),
                masks_top1=_percent(of_masks < 1),
                masks_top5=_percent(of_masks < 5),
            )
        )
    things, stuffs = [r for r in rows if r.thing], [r for r in rows if not r.thing]
    of_stuff = scores.masks[~thing[scores.mask_labels]]
    as_thing = of_stuff[:, thing].max(1, initial=-np.inf) > of_stuff[:, ~thing].max(1, initial=-np.inf)
    return Classification(
        boxes_top1=_mean(r.boxes_top1 for r in things),
        boxes_top5=_mean(r.boxes_top5 for r in things),
        masks_thing_top1=_mean(r.masks_top1 for r in things),
        masks_thing_top5=_mean(r.masks_top5 for r in things),
        masks_stuff_top1=_mean(r.masks_top1 for r in stuffs),
        masks_stuff_top5=_mean(r.masks_top5 for r in stuffs),
        stuff_as_thing=_percent(as_thing),
        things=sum(r.segments for r in things),
        stuffs=sum(r.segments for r in stuffs),
        skipped=scores.skipped,
        vanished=scores.vanished,
        classes=tuple(rows),
        weights=weights,
    )


def true_class_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores (R, D), labels (R,) -> (R,) how many other classes score at least as high as the true one."""
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    return (scores >= true).sum(1) - 1


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """One photo on its canvas: pixels uint8 (S, S, 3), boxes (n, 4) normalised, masks bool (n, t, t)."""

    pixels: np.ndarray
    boxes: np.ndarray
    masks: torch.Tensor
    labels: np.ndarray
    things: np.ndarray
    skipped: int


def _score(model: DenseCLIP, batch: list[_Prepared], text: torch.Tensor, mode: str) -> RegionScores:
    pixels = torch.from_numpy(np.stack([p.pixels for p in batch])).permute(0, 3, 1, 2)
    labels = np.concatenate([p.labels for p in batch])
    things = np.concatenate([p.things for p in batch])
    owner = np.repeat(np.arange(len(batch)), [len(p.labels) for p in batch])
    boxes = torch.from_numpy(np.concatenate([p.boxes for p in batch])[things]).to(text.device)
    masks = torch.cat([p.masks for p in batch]).to(text.device)
    dense = model.dense(model.prepare(pixels.to(text.device)), mode=mode)
    of_boxes = region_pool(dense, boxes, torch.from_numpy(owner[things]).to(text.device))
    of_masks = mask_pool(dense, masks, torch.from_numpy(owner).to(text.device))
    return RegionScores(
        boxes=(of_boxes @ text.T).cpu().numpy(),
        box_labels=labels[things],
        masks=(of_masks @ text.T).cpu().numpy(),
        mask_labels=labels,
        skipped=sum(p.skipped for p in batch),
        vanished=int((~masks.flatten(1).any(1)).sum()),
    )


def _prepare(dataset: PanopticDataset, i: int, tokens: int, config: ClassifyConfig) -> _Prepared:
    canvas = Canvas(config.canvas)
    sample = dataset[i]
    width, height = sample.photo.size
    kept = [s for s in sample.segments if config.min_side**2 <= _box_area(s.box) <= config.max_side**2]
    boxes = np.array([s.box for s in kept], np.float32).reshape(-1, 4)
    masks = np.array([s.mask for s in kept], bool).reshape(-1, height, width)
    return _Prepared(
        pixels=canvas.pad(np.asarray(canvas.resize(sample.photo))),
        boxes=canvas.to_canvas(boxes, width, height),
        masks=token_masks(masks, tokens),
        labels=np.array([s.category for s in kept], np.int64),
        things=np.array([s.thing for s in kept], bool),
        skipped=len(sample.segments) - len(kept),
    )


def _batches(prepare: Callable[[int], _Prepared], n: int, size: int) -> Iterator[list[_Prepared]]:
    """Prepared photos, `size` at a time; the next batch is decoded while the caller works on this one."""
    chunks = [range(start, min(start + size, n)) for start in range(0, n, size)]
    with ThreadPoolExecutor() as pool:
        ahead = pool.map(prepare, chunks[0])
        for chunk in [*chunks[1:], range(0)]:
            batch, ahead = list(ahead), pool.map(prepare, chunk)
            yield batch


def _box_area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _percent(hits: np.ndarray) -> float | None:
    return float(hits.mean() * 100) if len(hits) else None


def _mean(values: Iterable[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None
