"""Patch classification by nearest neighbours: what a dense map knows about classes, without any text.

A patch gets the class of most of its nearest patches in other, labelled photos. This needs no text, so it
also measures visual-only students (R-SC-V) and vision foundation models.
"""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.distributed import Distributed
from densecli.evaluation.batches import batches
from densecli.evaluation.config import KNNConfig
from densecli.evaluation.region_counts import require_finite
from densecli.evaluation.segmentation import Segmentation, confusion_to_metrics, count_pairs
from densecli.evaluation.semantic import Labelled, LabelledPhoto
from densecli.models.student import Student
from densecli.shards.geometry import Canvas

QUERIES_AT_ONCE = 1024


@torch.inference_mode()
def classify_patches(
    model: Student, bank: Labelled, queries: Labelled, config: KNNConfig, processes: Distributed
) -> Segmentation:
    """Classifies the labelled patches of `queries` by their nearest neighbours among the patches of `bank`.

    Args:
        model: The model under test.
        bank: Labelled photos whose patches are the neighbours.
        queries: Labelled photos whose patches are classified.
        config: Canvas, mode and number of neighbours.
        processes: The processes that share both sets of photos.

    Returns:
        Accuracy and mIoU over all queries, the same in every process.
    """
    own = _share(model, bank, config, processes)
    sizes = processes.gather([len(labels) for _, labels in own])
    tokens, labels = (_of_all(part, sizes, processes) for part in _columns(own))
    classes = len(queries.classes.names)
    counts = torch.zeros(classes**2, dtype=torch.int64, device=processes.device)
    for tokens_asked, truth in _share(model, queries, config, processes):
        for some, true in zip(tokens_asked.split(QUERIES_AT_ONCE), truth.split(QUERIES_AT_ONCE), strict=True):
            found = vote(some.to(processes.device), tokens, labels, config.k, classes)
            counts += count_pairs(true.to(processes.device), found, classes)
    total = processes.add(counts).view(classes, classes).cpu().numpy()
    return confusion_to_metrics(total, queries.classes.names, photos=len(queries))


def vote(queries: Tensor, bank: Tensor, labels: Tensor, k: int, classes: int) -> Tensor:
    """The class of most of the k nearest tokens by cosine.

    Args:
        queries: (Q, C) unit tokens.
        bank: (M, C) unit tokens.
        labels: (M,) classes of `bank`.
        k: Number of neighbours.
        classes: Number of classes.

    Returns:
        (Q,) classes. Of classes with equally many votes, the one whose voters have the higher sum of cosines.
    """
    cosines, nearest = (queries @ bank.T).topk(min(k, len(bank)), dim=1)
    votes = torch.zeros(len(queries), classes, device=queries.device)
    # A cosine less than 1 apart counts below any vote.
    votes.scatter_add_(1, labels[nearest], 1 + cosines / (4 * k))
    return votes.argmax(1)


def patch_labels(labels: np.ndarray, canvas: int, grid: tuple[int, int], classes: int) -> Tensor:
    """The class of most labelled pixels in each patch of a photo's canvas.

    Args:
        labels: (H, W) classes of the photo's pixels, negative where unlabelled.
        canvas: Side of the canvas in pixels.
        grid: Rows gh and columns gw of patches.
        classes: Number of classes.

    Returns:
        (gh * gw,) int64 classes; -1 for a patch without labelled pixels, such as one beyond the photo.
    """
    side = (torch.tensor(grid) * max(1, round(canvas / max(grid)))).tolist()
    width, height = Canvas(canvas).fit(labels.shape[1], labels.shape[0])
    size = (max(1, round(height * side[0] / canvas)), max(1, round(width * side[1] / canvas)))
    pixels = torch.full(side, -1)
    found = F.interpolate(torch.from_numpy(labels)[None, None].float(), size=size, mode="nearest")[0, 0]
    pixels[: size[0], : size[1]] = found.long()
    patches = (
        pixels.unflatten(0, (grid[0], -1))
        .unflatten(2, (grid[1], -1))
        .permute(0, 2, 1, 3)
        .flatten(2)
        .flatten(0, 1)
    )
    # One more class, the first, counts unlabelled pixels.
    votes = F.one_hot(patches + 1, classes + 1).sum(1)[:, 1:]
    return torch.where(votes.sum(1) > 0, votes.argmax(1), -1)


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _of_all(own: list[Tensor], sizes: list[list[int]], processes: Distributed) -> Tensor:
    """The batches of all processes in the order of the photos, which decides among equally near patches.

    Args:
        own: (n, ...) tensors, one for each batch of this process.
        sizes: n of each batch of each process.
        processes: The processes.
    """
    shares = processes.gather_rows(torch.cat(own).to(processes.device) if own else None)
    batches_of = [share.split(each) for share, each in zip(shares, sizes, strict=True)]
    return torch.cat([part for turn in zip_longest(*batches_of) for part in turn if part is not None])


def _share(
    model: Student, dataset: Labelled, config: KNNConfig, processes: Distributed
) -> list[tuple[Tensor, Tensor]]:
    """Unit tokens and classes of the labelled patches of this process's photos, a pair for each batch."""
    return [
        _tokens(model, batch, config, len(dataset.classes.names), processes.device)
        for batch in batches(dataset.__getitem__, len(dataset), config.batch_size, processes)
    ]


def _tokens(
    model: Student, batch: Sequence[LabelledPhoto], config: KNNConfig, classes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    canvas = Canvas(config.canvas)
    pixels = np.stack([canvas.pad(np.asarray(canvas.resize(found.photo))) for found in batch])
    dense = model(model.prepare(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)), config.mode)
    require_finite(dense)
    grid = (dense.shape[2], dense.shape[3])
    labels = torch.cat([patch_labels(found.labels, config.canvas, grid, classes) for found in batch])
    tokens = F.normalize(dense.float(), dim=1).flatten(2).transpose(1, 2).flatten(0, 1).cpu()
    return tokens[labels >= 0], labels[labels >= 0]
