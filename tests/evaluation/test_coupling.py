"""Coupling: cosines of other segments' tokens over those of the own segment's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densecli.core.errors import DenseCLIError
from densecli.evaluation.coupling import coupling_ratio, photo_coupling, token_owners
from densecli.evaluation.panoptic import PanopticDataset
from densecli.models.categories import Categories


def test_photo_coupling__is_a_loop_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = F.normalize(torch.randn(9, 4, generator=generator) + 1, dim=1)
    owners = torch.tensor([0, 0, 1, 1, 1, -1, 2, 0, -1])
    same, other = [], []
    for i in range(9):
        for j in range(9):
            if i != j and owners[i] >= 0 and owners[j] >= 0:
                (same if owners[i] == owners[j] else other).append(float(tokens[i] @ tokens[j]))
    assert photo_coupling(tokens, owners) == pytest.approx(np.mean(other) / np.mean(same), rel=1e-5)


def test_photo_coupling__of_equal_tokens_is_one_and_of_separate_ones_zero() -> None:
    owners = torch.tensor([0, 0, 1, 1])
    assert photo_coupling(F.normalize(torch.ones(4, 3), dim=1), owners) == pytest.approx(1)
    assert photo_coupling(F.one_hot(owners, 3).float(), owners) == 0


@pytest.mark.parametrize("owners", [[0, 0, 0], [0, 1, 2], [-1, -1, 3], [-1, -1, -1]])
def test_photo_coupling__needs_pairs_of_both_kinds(owners: list[int]) -> None:
    assert photo_coupling(F.normalize(torch.rand(3, 4), dim=1), torch.tensor(owners)) is None


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


def test_coupling_ratio__counts_photos_with_two_segments(dataset) -> None:
    def dense(images: torch.Tensor) -> torch.Tensor:
        bright = F.avg_pool2d(images.float().mean(dim=1, keepdim=True), 8) / 255
        return F.normalize(torch.cat([bright, 1 - bright], dim=1), dim=1)

    a, b = (F.normalize(torch.tensor([x, 1 - x]), dim=0) for x in (200 / 255, 40 / 255))
    # 12 pairs in the first segment's four tokens, 2 in the second's two, all alike.
    assert coupling_ratio(dense, dataset, 32) == pytest.approx(float(a @ b), abs=1e-3)
    dataset._pairs = dataset._pairs[1:]
    with pytest.raises(DenseCLIError, match="No photo has two segments"):
        coupling_ratio(dense, dataset, 32)
