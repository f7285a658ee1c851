"""R-SC's coupling ratio (eq. 15), and cosines of other segments' tokens over those of the own segment's."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densecli.core.errors import DenseCLIError
from densecli.evaluation.coupling import (
    coupling_ratios,
    cross_segment_similarity,
    photo_pairs,
    photo_similarity,
    token_owners,
)
from densecli.evaluation.panoptic import PanopticDataset
from densecli.models.categories import Categories


def test_photo_similarity__is_a_loop_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = F.normalize(torch.randn(9, 4, generator=generator) + 1, dim=1)
    owners = torch.tensor([0, 0, 1, 1, 1, -1, 2, 0, -1])
    same, other = [], []
    for i in range(9):
        for j in range(9):
            if i != j and owners[i] >= 0 and owners[j] >= 0:
                (same if owners[i] == owners[j] else other).append(float(tokens[i] @ tokens[j]))
    assert photo_similarity(tokens, owners) == pytest.approx(np.mean(other) / np.mean(same), rel=1e-5)


def test_photo_similarity__of_equal_tokens_is_one_and_of_separate_ones_zero() -> None:
    owners = torch.tensor([0, 0, 1, 1])
    assert photo_similarity(F.normalize(torch.ones(4, 3), dim=1), owners) == pytest.approx(1)
    assert photo_similarity(F.one_hot(owners, 3).float(), owners) == 0


@pytest.mark.parametrize("owners", [[0, 0, 0], [0, 1, 2], [-1, -1, 3], [-1, -1, -1]])
def test_photo_similarity__needs_pairs_of_both_kinds(owners: list[int]) -> None:
    assert photo_similarity(F.normalize(torch.rand(3, 4), dim=1), torch.tensor(owners)) is None


@pytest.fixture
def dataset(write_panoptic) -> PanopticDataset:
    """32 x 16 pixels: the left 20 columns are one segment, the rest another; a second photo has one only."""
    left = np.zeros((16, 32), bool)
    left[:, :20] = True
    photo = np.repeat(np.where(left, 200, 40)[..., None], 3, axis=2).astype(np.uint8)
    whole = np.ones((16, 32), bool)
    photos = [(photo, [(0, left, False), (1, ~left, False)]), (photo, [(1, whole, False)])]
    root = write_panoptic("coco", ["cat", "sky"], [True, False], photos)
    categories = Categories(name="two", names=("cat", "sky"), thing=np.array([True, False]))
    return PanopticDataset(root, "val", categories)


def test_token_owners__the_majority_and_none_on_the_padding(dataset) -> None:
    owners = token_owners(dataset[0], 32, (4, 4))
    assert owners.tolist() == [[0, 0, -1, 1]] * 2 + [[-1] * 4] * 2


def test_cross_segment_similarity__counts_photos_with_two_segments(dataset) -> None:
    def dense(images: torch.Tensor) -> torch.Tensor:
        bright = F.avg_pool2d(images.float().mean(dim=1, keepdim=True), 8) / 255
        return F.normalize(torch.cat([bright, 1 - bright], dim=1), dim=1)

    a, b = (F.normalize(torch.tensor([x, 1 - x]), dim=0) for x in (200 / 255, 40 / 255))
    # 12 pairs in the first segment's four tokens, 2 in the second's two, all alike.
    assert cross_segment_similarity(dense, dataset, 32) == pytest.approx(float(a @ b), abs=1e-3)
    dataset._photos = dataset._photos[1:]
    with pytest.raises(DenseCLIError, match="No photo has two segments"):
        cross_segment_similarity(dense, dataset, 32)


def cosine(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))


def eq_15(beside_a, beside_b, alone_a, alone_b) -> list[float]:
    """The ratio of each token of A; each argument is a list of tokens, each a list of numbers."""
    ratios = []
    for i, token in enumerate(beside_a):
        j = max(range(len(beside_b)), key=lambda k: cosine(token, beside_b[k]))
        ratios.append(cosine(token, beside_b[j]) / cosine(alone_a[i], alone_b[j]))
    return ratios


def flat(dense: torch.Tensor) -> list[list[float]]:
    """Tokens of a (1, C, h, w) map, row by row."""
    return [dense[0, :, y, x].tolist() for y in range(dense.shape[2]) for x in range(dense.shape[3])]


def mixing(images: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) -> (1, 5, H/4, W/4): a map in which all tokens of an image reach each other."""
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    found = F.conv2d(images, weight, stride=4)
    return found + 2 * found.mean(dim=(2, 3), keepdim=True)


def photo(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def test_coupling_ratios__are_eq_15() -> None:
    a, b = photo(0), photo(1)
    together = mixing(torch.cat([a, b], dim=3))
    expected = eq_15(flat(together[..., :3]), flat(together[..., 3:]), flat(mixing(a)), flat(mixing(b)))
    found = coupling_ratios(mixing, a, b)
    assert found.tolist() == pytest.approx(expected, rel=1e-3)
    assert found.tolist() != pytest.approx([1.0] * 9, rel=1e-2)


def test_coupling_ratios__are_one_where_tokens_do_not_reach_each_other() -> None:
    def local(images: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(images, 4)

    assert coupling_ratios(local, photo(0), photo(1)).tolist() == pytest.approx([1.0] * 9, rel=1e-4)


def test_photo_pairs__every_photo_once_on_each_side(write_panoptic) -> None:
    whole = np.ones((16, 32), bool)
    photos = [(np.full((16, 32, 3), 40 * n, np.uint8), [(0, whole, False)]) for n in range(4)]
    root = write_panoptic("coco", ["cat"], [True], photos)
    categories = Categories(name="one", names=("cat",), thing=np.array([True]))
    dataset = PanopticDataset(root, "val", categories)
    pairs = [(int(a.mean()), int(b.mean())) for a, b in photo_pairs(dataset, 8)]
    left, right = zip(*pairs, strict=True)
    assert sorted(left) == sorted(right) == [0, 40, 80, 120] and all(a != b for a, b in pairs)
    assert pairs == [(int(a.mean()), int(b.mean())) for a, b in photo_pairs(dataset, 8)]
    with pytest.raises(DenseCLIError, match="pairs of photos"):
        list(photo_pairs(PanopticDataset(root, "val", categories, 1), 8))
