"""The count of FLOPs against the papers' figures and against arithmetic done by hand."""

import pytest
import torch

from densecli.models.checkpoints import load_model
from densecli.models.flops import dense_forward, image_forward, vfm_forward
from densecli.scenes.vocabulary import IMAGE_SIZE, SCENES_CONFIGS


@pytest.mark.parametrize(
    ("forward", "gflops"),
    [
        (lambda: dense_forward("vitl14", 512), 1000),
        (lambda: dense_forward("vitb16", 512), 215),
        (lambda: image_forward("vitb16"), 35),
        (lambda: vfm_forward("dinov2-vitb14", 512, 16), 215),
    ],
)
def test_forward__agrees_with_what_is_known(forward, gflops):
    assert forward().flops / 1e9 == pytest.approx(gflops, rel=0.03)


def test_forward__is_the_sum_of_the_products():
    config = SCENES_CONFIGS["scenes-s"]
    vision = config["vision_cfg"]
    width, layers, patch = vision["width"], vision["layers"], vision["patch_size"]
    patches = (IMAGE_SIZE // patch) ** 2
    tokens = patches + 1
    block = tokens * (4 + 8) * width**2 + 2 * tokens**2 * width
    products = patches * 3 * patch**2 * width + layers * block + width * config["embed_dim"]
    assert image_forward("scenes-s").flops == pytest.approx(2 * products, rel=0.01)


def test_forward__shape_is_that_of_the_real_model():
    model, _ = load_model("scenes-s", "random:0")
    side = model.input_side(120)
    assert dense_forward("scenes-s", 120).shape == tuple(model.dense(torch.zeros(1, 3, side, side)).shape[1:])
    assert vfm_forward("dinov2-vits14", 96, 16).shape == (384, 6, 6)
