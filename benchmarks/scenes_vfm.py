"""kNN accuracy of the tokens of the generated world's VFM and CLIPs, as a markdown table.

    python benchmarks/scenes_vfm.py

Each patch of a validation scene is classified by its 20 nearest patches of training scenes (cosine
similarity, votes weighted by exp(cos / 0.07) as in DINO). Only patches that one segment covers by at least
60 % count. "segments, AUC" is the probability that two patches of the same segment are more similar than two
patches of different segments of the same scene.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.models.checkpoints import load_model
from densecli.models.dense import DenseCLIP
from densecli.models.vfm import VFM
from densecli.models.vfm_checkpoints import load_vfm
from densecli.models.weights import find_weights
from densecli.scenes.vocabulary import IMAGE_SIZE, NAMES, THINGS
from densecli.scenes.world import render

PATCH, SIDE = 12, IMAGE_SIZE // 12
COVERED, NEIGHBOURS, TAU = 0.6, 20, 0.07
Read = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=400, help="number of training scenes")
    parser.add_argument("--val", type=int, default=150, help="number of validation scenes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, val = scenes("train", args.train), scenes("val", args.val)
    print("| tokens | kNN, % | things | stuff | segments, AUC |\n|---|---|---|---|---|")
    for title, read in readings().items():
        row = [*knn(read, train, val), segment_auc(read, val)]
        print(f"| {title} | {row[0]:.1f} | {row[1]:.1f} | {row[2]:.1f} | {row[3]:.3f} |")


def vfm_tokens(vfm: VFM, canvases: Tensor) -> Tensor:
    tokens: Tensor = vfm(vfm.prepare(canvases, PATCH))
    return tokens


def clip_tokens(clip: DenseCLIP, canvases: Tensor) -> Tensor:
    return clip.dense(clip.prepare(canvases))


def readings() -> dict[str, Read]:
    """(B, 3, S, S) canvases -> (B, C, h, w), by title."""
    found: dict[str, Read] = {"mean colour": lambda x: F.avg_pool2d(x.float(), PATCH) - 127.5}
    for title, weights in (("random weights", "random:0"), ("scenes-vfm", find_weights("scenes-vfm"))):
        vfm = load_vfm("scenes-vfm", weights)
        found[title] = partial(vfm_tokens, vfm)
    for name in ("scenes-s", "scenes-l", "scenes-pvlm", "scenes-pvlm-unbiased"):
        clip, _ = load_model(name)
        found[name] = partial(clip_tokens, clip)
    return found


def scenes(split: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Canvases (N, 3, S, S); the class of each patch (N, h*w), -1 if not covered; its segment, 0 if not."""
    every = [render(0, split, index) for index in range(count)]
    classes, segments = [], []
    for scene in every:
        of_segment = np.full(scene.panoptic.max() + 1, -1)
        of_segment[[s.id for s in scene.segments]] = [s.category for s in scene.segments]
        patches = scene.panoptic.reshape(SIDE, PATCH, SIDE, PATCH).swapaxes(1, 2).reshape(SIDE**2, -1)
        counts = np.stack([np.bincount(patch, minlength=len(of_segment)) for patch in patches])
        whole = counts.max(1) >= COVERED * PATCH**2
        classes.append(np.where(whole, of_segment[counts.argmax(1)], -1))
        segments.append(np.where(whole, counts.argmax(1), 0))
    images = torch.from_numpy(np.stack([scene.image for scene in every])).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.stack(classes)), torch.from_numpy(np.stack(segments))


@torch.inference_mode()
def tokens(read: Read, images: Tensor) -> Tensor:
    """(N, h*w, C) of unit norm."""
    maps = torch.cat([read(batch) for batch in images.split(50)])
    return F.normalize(maps.flatten(2).transpose(1, 2), dim=-1)


def knn(read: Read, train: tuple[Tensor, ...], val: tuple[Tensor, ...]) -> tuple[float, float, float]:
    """Accuracy in percent: over all patches, and the mean over thing classes and over stuff classes."""
    (bank, names), (queries, truth) = (
        (tokens(read, images)[classes >= 0], classes[classes >= 0]) for images, classes, _ in (train, val)
    )
    cosines, rows = (queries @ bank.T).topk(NEIGHBOURS, dim=1)
    votes = torch.zeros(len(queries), len(NAMES)).scatter_add_(1, names[rows], (cosines / TAU).exp())
    right = (votes.argmax(1) == truth).float() * 100
    each = [right[truth == c].mean().item() for c in range(len(NAMES))]
    n = len(THINGS)
    return right.mean().item(), float(np.nanmean(each[:n])), float(np.nanmean(each[n:]))


def segment_auc(read: Read, val: tuple[Tensor, ...]) -> float:
    areas = []
    for x, segment in zip(tokens(read, val[0]), val[2], strict=True):
        x, segment = x[segment > 0], segment[segment > 0]
        first, second = torch.triu_indices(len(x), len(x), offset=1)
        same = segment[first] == segment[second]
        pairs = int(same.sum()), int((~same).sum())
        if all(pairs):
            rank = (x[first] * x[second]).sum(1).argsort().argsort()[same].double()
            areas.append(((rank.sum() - pairs[0] * (pairs[0] - 1) / 2) / pairs[0] / pairs[1]).item())
    return float(np.mean(areas))


if __name__ == "__main__":
    main()
