"""Coupling: how far a token's features mix in those of its neighbours in the image.

Two figures: R-SC's coupling ratio (eq. 15), which compares two photos side by side with each photo alone, and
the similarity of tokens across the segments of one photo.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from densecli.core.device import pick_device
from densecli.core.errors import DenseCLIError
from densecli.evaluation.conditions import Conditions
from densecli.evaluation.config import ClassifyConfig
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.panoptic import AnnotatedPhoto, PanopticDataset, absent_text
from densecli.evaluation.photo_files import Photos
from densecli.models.categories import load_categories
from densecli.models.dense import DenseCLIP
from densecli.models.refiner_checkpoints import load_refiner
from densecli.models.student import Student
from densecli.shards.config import DeviceSettings
from densecli.shards.geometry import Canvas

log = logging.getLogger(__name__)

DenseMap = Callable[[Tensor], Tensor]
"""(1, 3, H, W) normalised pixels -> (1, C, h, w)."""


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """The coupling of one network. Lower is better for each figure.

    Attributes:
        coupling_ratio_mean: Mean of R-SC's coupling ratios (eq. 15) over tokens. A single denominator near 0
            can change it by any amount.
        coupling_ratio_median: Their median.
        cross_segment_similarity: See `cross_segment_similarity`.
        random_weights: Whether the weights were random, so that the figures mean nothing.
        measured: The conditions.
    """

    coupling_ratio_mean: float
    coupling_ratio_median: float
    cross_segment_similarity: float
    random_weights: bool
    measured: Conditions


def evaluate_coupling(
    under_test: ModelUnderTest,
    refiner: str | None,
    *,
    data: str,
    split: str,
    categories: str,
    limit: int | None = None,
    device: str = DeviceSettings.device,
    config: ClassifyConfig,
) -> dict[str, Coupling]:
    """Measures the coupling of a model and, if a file is given, of its Refiner.

    Args:
        under_test: The model under test.
        refiner: File of a Refiner that was trained on this model, or None.
        data: Folder of a data set in the COCO or ADE20K panoptic layout.
        split: Split of the data set.
        categories: Name or file of the category set.
        limit: Number of photos, by default all.
        device: See `pick_device`.
        config: Only canvas and mode are used.

    Returns:
        The coupling by title.

    Raises:
        DenseCLIError: There are fewer than two photos, or none with two segments to compare.
    """
    dataset = PanopticDataset(data, split, load_categories(categories), limit)
    model, info = under_test.load(pick_device(device))
    networks: dict[str, DenseMap] = {under_test.title: partial(model.dense, mode=config.mode)}
    if refiner:
        own = load_refiner(under_test.model, under_test.weights, refiner, model.device)
        networks[f"its Refiner, {refiner}"] = own.dense
    measured = Conditions(
        data=f"{data}, {split}",
        photos=len(dataset),
        categories=categories,
        canvas=config.canvas,
        mode=config.mode,
        weights=info.source,
    )
    found = {
        title: _coupling(model, dense, dataset, config.canvas, measured, random_weights=info.random)
        for title, dense in networks.items()
    }
    if dataset.absent:
        log.warning("%s", absent_text(dataset.absent))
    return found


def _coupling(
    model: DenseCLIP,
    dense: DenseMap,
    dataset: PanopticDataset,
    canvas: int,
    measured: Conditions,
    *,
    random_weights: bool,
) -> Coupling:
    def of_canvas(pixels: Tensor) -> Tensor:
        return F.normalize(dense(model.prepare(pixels.to(model.device))), dim=1)

    mean, median = mean_and_median(ratios_of_photos(model, dense, dataset, canvas))
    return Coupling(
        coupling_ratio_mean=mean,
        coupling_ratio_median=median,
        cross_segment_similarity=cross_segment_similarity(of_canvas, dataset, canvas),
        random_weights=random_weights,
        measured=measured,
    )


def ratios_of_photos(model: Student, dense: DenseMap, photos: Photos, canvas: int) -> Tensor:
    """R-SC's coupling ratios (eq. 15) of all tokens of all `photo_pairs`.

    Args:
        model: The network, which says how pixels are normalised and on which device.
        dense: Its dense map, or that of its Refiner.
        photos: The photos.
        canvas: Side of the squares that they are cropped to, in pixels.

    Returns:
        (pairs * N,) float32 ratios, on the CPU. Raises DenseCLIError for fewer than two photos.
    """
    device = next(model.parameters()).device
    pairs = photo_pairs(photos, model.input_side(canvas))
    found = [coupling_ratios(dense, *(model.normalize(x.to(device)) for x in pair)) for pair in pairs]
    return torch.cat(found)


def mean_and_median(ratios: Tensor) -> tuple[float, float]:
    """The two figures that stand for the coupling ratios of a network's tokens.

    Args:
        ratios: See `ratios_of_photos`. A single denominator near 0 can change the mean by any amount.
    """
    return float(ratios.mean()), float(np.median(ratios.numpy()))


def photo_pairs(dataset: Photos, side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs each photo with the next one, in a shuffled order that is always the same.

    Photos are cropped to a square at their centre, because padding would look alike in every photo.

    Args:
        dataset: The photos.
        side: Side of the squares in pixels.

    Yields:
        Two (1, 3, side, side) images, pixels in 0..255.

    Raises:
        DenseCLIError: There are fewer than two photos.
    """
    if len(dataset) < 2:
        raise DenseCLIError(
            "The coupling ratio compares pairs of photos.", hint="Give another --split or a higher --limit."
        )
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    first = last = _square(dataset[order[0]].photo, side)
    for index in order[1:]:
        image = _square(dataset[index].photo, side)
        yield last, image
        last = image
    yield last, first


def _square(photo: Image.Image, side: int) -> Tensor:
    """(1, 3, side, side) float32, the square at the centre of a photo."""
    pixels = np.asarray(ImageOps.fit(photo, (side, side), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()


@torch.inference_mode()
def coupling_ratios(dense: DenseMap, a: Tensor, b: Tensor) -> Tensor:
    """R-SC's coupling ratio (eq. 15) for each token of photo A, before the mean over tokens.

    In the image A|B, token j of B is the most similar to token i of A. The ratio is their cosine in A|B over
    their cosine when A and B are encoded alone. 1 means that neither photo has changed the other's features.
    R-SC does not say how it treats a denominator near 0.

    Args:
        dense: The dense map of a network.
        a: (1, 3, H, W) normalised pixels.
        b: The same of another photo, of the same size.

    Returns:
        (N,) float32 ratios, on the CPU, of the N tokens of A.
    """
    together, alone_a, alone_b = (_tokens(dense(x)) for x in (torch.cat([a, b], dim=3), a, b))
    width = alone_a.shape[1]
    beside_a, beside_b = together[:, :width].flatten(0, 1), together[:, width:].flatten(0, 1)
    cosines, best = (beside_a @ beside_b.T).max(dim=1)
    alone = (alone_a.flatten(0, 1) * alone_b.flatten(0, 1)[best]).sum(dim=1)
    return (cosines / alone).cpu()


def _tokens(dense: Tensor) -> Tensor:
    """(1, C, h, w) -> (h, w, C), unit norm."""
    return F.normalize(dense[0].float(), dim=0).permute(1, 2, 0)


@torch.inference_mode()
def cross_segment_similarity(
    dense: Callable[[Tensor], Tensor], dataset: PanopticDataset, canvas: int
) -> float:
    """Averages `photo_similarity` over photos. Lower is better; 1 means that segments are not separated.

    The segments of panoptic ground truth say which tokens belong together. No paper has this figure.

    Args:
        dense: (1, 3, S, S) pixels in 0..255 of a canvas -> (1, C, h, w), unit norm per token.
        dataset: Photos with their segments. A photo counts if it has two tokens of one segment and two of
            different segments.
        canvas: S.

    Raises:
        DenseCLIError: No photo counts.
    """
    ratios = []
    for i in range(len(dataset)):
        photo = dataset[i]
        pixels = Canvas(canvas).pad(np.asarray(Canvas(canvas).resize(photo.photo)))
        found = dense(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].cpu()
        owners = token_owners(photo, canvas, (found.shape[1], found.shape[2]))
        ratio = photo_similarity(found.flatten(1).T, owners.flatten())
        ratios += [] if ratio is None else [ratio]
    if not ratios:
        raise DenseCLIError(
            "No photo has two segments to compare.", hint="Give another --split or a higher --limit."
        )
    return float(np.mean(ratios))


def photo_similarity(tokens: Tensor, owners: Tensor) -> float | None:
    """Mean cosine of tokens of different segments, over the mean cosine of tokens of one segment.

    Args:
        tokens: (N, C), unit norm.
        owners: (N,) segment of each token; tokens with a negative one are left out.

    Returns:
        The ratio, in which all pairs of tokens count the same; None if there is no pair of either kind.
    """
    kept = owners >= 0
    cosines, owners = tokens[kept] @ tokens[kept].T, owners[kept]
    same = owners[:, None] == owners
    pairs = same & ~torch.eye(len(owners), dtype=torch.bool)
    if same.all() or not pairs.any():
        return None
    return float(cosines[~same].mean() / cosines[pairs].mean())


def token_owners(photo: AnnotatedPhoto, canvas: int, grid: tuple[int, int]) -> Tensor:
    """(h, w) int64: for each token of the canvas, the segment that covers more than half of it, or -1."""
    masks = torch.from_numpy(np.array([s.mask for s in photo.segments], np.float32))
    width, height = Canvas(canvas).fit(*photo.photo.size)
    resized = F.interpolate(masks[:, None], size=(height, width), mode="area")[:, 0]
    share = F.adaptive_avg_pool2d(F.pad(resized, (0, canvas - width, 0, canvas - height)), grid)
    most, owner = share.max(dim=0)
    return torch.where(most > 0.5, owner, -1)
