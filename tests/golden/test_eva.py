"""The EVA towers of DenseVLM and DeCLIP, by their released code's numbers."""

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

SIDES = (64, 128)  # native, and twice the native size
BATCH_INDEX = torch.tensor([0, 0, 0, 0, 1, 1])
DECLIP_MODES = ("maskclip", "vanilla", "qq", "kk", "vv", "csa", "all")


class Figures:
    """A golden file, its arrays as tensors, and the model it was made with."""

    def __init__(self, path: Path) -> None:
        self.arrays = np.load(path, allow_pickle=False)
        config = json.loads(str(self.arrays["config"]))
        prefix = "state_dict/"
        state = {key.removeprefix(prefix): self[key] for key in self.arrays.files if key.startswith(prefix)}
        self.model: DenseCLIP = build(Architecture(name="golden", family="eva", config=config))
        load_weights(self.model, state)
        self.boxes = torch.cat([self["boxes0"], self["boxes1"]])

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))


@pytest.fixture(scope="module")
def densevlm(golden: Path) -> Figures:
    return Figures(golden / "eva_densevlm.npz")


@pytest.fixture(scope="module")
def declip(golden: Path) -> Figures:
    return Figures(golden / "eva_declip.npz")


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", SIDES)
@torch.no_grad()
def test_densevlm__image_embedding(densevlm: Figures, side: int) -> None:
    close(densevlm.model.encode_image(densevlm[f"image_{side}"]), densevlm[f"encode_image_{side}"])


@pytest.mark.parametrize("side", SIDES)
@torch.no_grad()
def test_densevlm__dense_and_pooled(densevlm: Figures, side: int) -> None:
    dense = densevlm.model(densevlm[f"image_{side}"])
    close(dense, densevlm[f"dense_{side}"])
    close(region_pool(dense, densevlm.boxes, BATCH_INDEX, normalize=False), densevlm[f"roi_{side}"])
    masks = torch.cat([densevlm[f"masks0_{side}"], densevlm[f"masks1_{side}"]])
    close(
        mask_pool(dense, masks, BATCH_INDEX.bincount().tolist(), normalize=False),
        densevlm[f"mask_pool_{side}"],
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mode", DECLIP_MODES)
@torch.no_grad()
def test_declip__every_mode(declip: Figures, mode: str, side: int) -> None:
    close(declip.model(declip[f"image_{side}"], mode), declip[f"dense_{mode}_{side}"])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("mode", "contexts"),
    [("qq", {"q": "context_qq_vfm_distill"}),
     ("csa", {"q": "context_q_csa_vfm_distill", "k": "context_k_csa_vfm_distill"})],
)  # fmt: skip
@torch.no_grad()
def test_declip__regions_and_context(declip: Figures, mode: str, contexts: dict[str, str], side: int) -> None:
    dense, context = declip.model(declip[f"image_{side}"], mode, context=True)
    regions = region_pool(dense, declip.boxes, BATCH_INDEX, normalize=False)
    close(regions, declip[f"roi_{mode}_vfm_distill_{side}"])
    assert context.keys() == contexts.keys()
    for name, key in contexts.items():
        per_head = context[name].unflatten(1, (2, 32)).flatten(0, 1).flatten(2).transpose(1, 2)
        close(per_head, declip[f"{key}_{side}"])


@torch.no_grad()
def test_declip__papers_scale_is_another_map(declip: Figures) -> None:
    released = declip.model(declip["image_64"], "qq")
    assert (declip.model(declip["image_64"], "qq+scale") - released).abs().max() > 0.1


@pytest.mark.parametrize("side", SIDES)
@torch.no_grad()
def test_declip__image_embedding(declip: Figures, side: int) -> None:
    close(declip.model.encode_image(declip[f"image_{side}"]), declip[f"encode_image_{side}"])
