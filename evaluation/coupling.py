"""Coupling: how similar tokens of different segments are, compared with tokens of one segment."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.evaluation.config import ClassifyConfig
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.panoptic import AnnotatedPhoto, PanopticDataset
from densecli.models.categories import load_categories
from densecli.models.refiner import load_refiner
from densecli.shards.geometry import Canvas


def evaluate_coupling(
    subject: ModelUnderTest,
    refiner: str | None,
    *,
    data: str,
    split: str,
    categories: str,
    limit: int | None = None,
    device: str = "auto",
    config: ClassifyConfig,
) -> dict[str, float]:
    """Coupling ratios by title: of a model and, where its file is given, of its Refiner.

    Args:
        subject: The model under test.
        refiner: File of a Refiner that was trained on this model.
        data: Folder of a data set in the COCO or ADE20K panoptic layout.
        split: Of the data set.
        categories: Name or file of the category set.
        limit: Number of photos, by default all.
        device: See `pick_device`.
        config: Only canvas and mode are used.
    """
    dataset = PanopticDataset(data, split, load_categories(categories), limit)
    model, info = subject.load(pick_device(device))
    networks: dict[str, Callable[[Tensor], Tensor]] = {subject.title: partial(model.dense, mode=config.mode)}
    if refiner:
        own = load_refiner(subject.model, subject.weights, refiner, model.device)
        networks[f"its Refiner, {refiner}"] = own.dense
    random = " (random weights)" if info.random else ""

    def ratio(dense: Callable[[Tensor], Tensor]) -> float:
        def tokens(canvases: Tensor) -> Tensor:
            return F.normalize(dense(model.prepare(canvases.to(model.device))), dim=1)

        return coupling_ratio(tokens, dataset, config.canvas)

    return {title + random: ratio(dense) for title, dense in networks.items()}


@torch.inference_mode()
def coupling_ratio(dense: Callable[[Tensor], Tensor], dataset: PanopticDataset, canvas: int) -> float:
    """The mean over photos of `photo_coupling`: lower is better, 1 is a map that tells no segments apart.

    Named after R-SC's coupling ratio (eq. 15), and not claimed to be that equation: here the segments of
    panoptic ground truth say which tokens belong together. dense: (1, 3, S, S) pixels in
    0..255 of a canvas of side `canvas` -> (1, C, h, w), unit norm per token. Photos that have no two tokens
    of one segment, or no two of different ones, do not count; raises DenseCLIError where none does.
    """
    ratios = []
    for i in range(len(dataset)):
        photo = dataset[i]
        pixels = Canvas(canvas).pad(np.asarray(Canvas(canvas).resize(photo.photo)))
        found = dense(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].cpu()
        owners = token_owners(photo, canvas, (found.shape[1], found.shape[2]))
        ratio = photo_coupling(found.flatten(1).T, owners.flatten())
        ratios += [] if ratio is None else [ratio]
    if not ratios:
        raise DenseCLIError(
            "No photo has two segments to compare.", hint="Give another split or a higher --limit."
        )
    return float(np.mean(ratios))


def photo_coupling(tokens: Tensor, owners: Tensor) -> float | None:
    """Mean cosine of two tokens of different segments over that of two different tokens of one segment.

    tokens: (N, C), unit norm. owners: (N,) each token's segment, negative where it has none: such tokens are
    left out. All pairs of the photo count the same. None where there is no pair of either kind.
    """
    kept = owners >= 0
    cosines, owners = tokens[kept] @ tokens[kept].T, owners[kept]
    same = owners[:, None] == owners
    pairs = same & ~torch.eye(len(owners), dtype=torch.bool)
    if same.all() or not pairs.any():
        return None
    return float(cosines[~same].mean() / cosines[pairs].mean())


def token_owners(photo: AnnotatedPhoto, canvas: int, grid: tuple[int, int]) -> Tensor:
    """(h, w) int64: the segment that covers more than half of each token of the canvas, or -1."""
    masks = torch.from_numpy(np.array([s.mask for s in photo.segments], np.float32))
    width, height = Canvas(canvas).fit(*photo.photo.size)
    resized = F.interpolate(masks[:, None], size=(height, width), mode="area")[:, 0]
    share = F.adaptive_avg_pool2d(F.pad(resized, (0, canvas - width, 0, canvas - height)), grid)
    most, owner = share.max(dim=0)
    return torch.where(most > 0.5, owner, -1)
