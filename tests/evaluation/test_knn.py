"""Patches by nearest neighbours: votes by hand, labels by brute force, and real DINOv2 on real photos."""

import numpy as np
import torch
from torch import nn

from densecli.core.distributed import Distributed
from densecli.evaluation.knn import KNNConfig, classify_patches, patch_labels, vote
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.semantic import PanopticLabels, open_labelled
from densecli.models.categories import Categories
from densecli.models.student import load_student

NAMES = ("cat", "sea", "sky")
SET = Categories(name="three", names=NAMES, thing=np.array([True, False, False]))
ALONE = Distributed(device=torch.device("cpu"))


def test_vote__most_of_the_nearest():
    angles = torch.tensor([0.0, 0.3, 0.4, 1.5, 1.6])
    bank, labels = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0, 1, 1, 2, 2])
    ask = torch.tensor([[1.0, 0.0]])
    assert vote(ask, bank, labels, 1, 3).tolist() == [0]
    assert vote(ask, bank, labels, 3, 3).tolist() == [1]
    # One vote each: the nearer one has it.
    assert vote(ask, bank, labels, 2, 3).tolist() == [0]
    # All five: two of 1 and two of 2, and those of 1 are nearer.
    assert vote(ask, bank, labels, 20, 3).tolist() == [1]


def test_patch_labels__are_the_class_of_most_labelled_pixels():
    labels = np.full((8, 16), 1)
    labels[:, 8:] = 2
    labels[:3, :8] = 0  # 3 of 8 rows
    labels[:, 12:] = -1
    # The canvas is 16 px: 2 x 2 patches of 8 px, the lower ones beyond the photo.
    assert patch_labels(labels.astype(np.int16), 16, (2, 2), 3).tolist() == [1, 2, -1, -1]


def test_patch_labels__of_a_photo_at_another_scale():
    labels = np.array([[0, 1], [2, 0]]).repeat(50, 0).repeat(50, 1).astype(np.int16)
    assert patch_labels(labels, 32, (2, 2), 3).tolist() == [0, 1, 2, 0]
    assert patch_labels(labels, 30, (4, 4), 3).view(4, 4)[0].tolist() == [0, 0, 1, 1]


class Colour(nn.Module):
    """Tokens are the colour of their patch of 8 px."""

    def prepare(self, canvases):
        return canvases.float()

    def forward(self, images, mode):
        return images[:, :, 4::8, 4::8] + 1e-6


def coloured(classes, rng):
    """A photo of 8 px cells whose colour tells the class, with noise, and its segments."""
    classes = np.asarray(classes).repeat(8, 0).repeat(8, 1)
    palette = np.array([[200, 20, 20], [20, 200, 20], [20, 20, 200]])
    photo = np.clip(palette[classes] + rng.integers(0, 15, (*classes.shape, 3)), 0, 255).astype(np.uint8)
    return photo, [(c, classes == c, False) for c in np.unique(classes)]


def test_classify_patches__colour_tells_the_class(write_panoptic):
    rng = np.random.default_rng(0)
    photos = [coloured(rng.integers(0, 3, (4, 4)), rng) for _ in range(5)]
    root = write_panoptic("coco", NAMES, SET.thing, photos)
    labelled = PanopticLabels(PanopticDataset(root, "val", SET))
    result = classify_patches(Colour(), labelled, labelled, KNNConfig(canvas=32, batch_size=2, k=3), ALONE)
    assert result.pixel_accuracy == result.miou == 100.0
    assert sum(c.pixels for c in result.classes) == 5 * 16


def test_classify_patches__real_dinov2_knows_more_than_random_weights(shared_data):
    coco = str(shared_data / "coco128")
    bank = open_labelled("panoptic", coco, "train2017", limit=40)
    queries = open_labelled("panoptic", coco, "val2017", limit=20)
    file = str(shared_data / "weights" / "dinov2_vits14_fp16.safetensors")
    config = KNNConfig(canvas=112, k=5)
    real, random = (
        classify_patches(
            load_student("dinov2-vits14", weights)[0], bank, queries, config, ALONE
        ).pixel_accuracy
        for weights in (file, "random:0")
    )
    assert real > random + 10
