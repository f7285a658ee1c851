"""The OpenCLIP towers of DenseVLM's fork (QuickGELU ViT, ModifiedResNet), by their numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from densecli.models.architecture import Architecture
from densecli.models.checkpoints import load_weights
from densecli.models.dense import DenseCLIP
from densecli.models.pooling import mask_pool, region_pool
from densecli.models.registry import build

BATCH_INDEX = torch.tensor([0, 0, 0, 0, 1, 1])
TOWERS = {"vit": "vit", "rn": "resnet"}


class Figures:
    """One tower's part of the golden file, its arrays as tensors, and the model it was made with."""

    def __init__(self, path: Path, tower: str) -> None:
        self.arrays, self.tower = np.load(path, allow_pickle=False), tower
        config = json.loads(str(self.arrays["configs"]))[tower]
        prefix = f"{tower}/state_dict/"
        keys = [key for key in self.arrays.files if key.startswith(prefix)]
        state = {key.removeprefix(prefix): tensor(self.arrays[key]) for key in keys}
        self.model: DenseCLIP = build(Architecture(name="golden", family=TOWERS[tower], config=config))
        load_weights(self.model, state)
        self.boxes = torch.cat([tensor(self.arrays["boxes0"]), tensor(self.arrays["boxes1"])])

    def __getitem__(self, key: str) -> Tensor:
        return tensor(self.arrays[f"{self.tower}/{key}"])


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


@pytest.fixture(scope="module", params=list(TOWERS))
def figures(request: pytest.FixtureRequest, golden: Path) -> Figures:
    return Figures(golden / "openclip_densevlm.npz", request.param)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_densevlm_openclip__image_embedding(figures: Figures) -> None:
    sides = [side for side in (64, 128) if f"{figures.tower}/encode_image_{side}" in figures.arrays.files]
    assert 64 in sides
    for side in sides:
        close(figures.model.encode_image(figures[f"image_{side}"]), figures[f"encode_image_{side}"])


@pytest.mark.parametrize("side", [64, 128])
@torch.no_grad()
def test_densevlm_openclip__dense_and_pooled(figures: Figures, side: int) -> None:
    dense = figures.model(figures[f"image_{side}"])
    close(dense, figures[f"dense_{side}"])
    close(region_pool(dense, figures.boxes, BATCH_INDEX, normalize=False), figures[f"roi_{side}"])
    masks = torch.cat([figures[f"masks0_{side}"], figures[f"masks1_{side}"]])
    close(
        mask_pool(dense, masks, BATCH_INDEX.bincount().tolist(), normalize=False),
        figures[f"mask_pool_{side}"],
    )
